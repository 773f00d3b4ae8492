"""Augmentation of a batch: ours against kornia's own pipeline, ms per batch on this machine's GPU or CPU.

    python benchmarks/augmentation.py [--device cpu] [--batch 64] [--rounds 30]

From uint8 pixels on the device to normalised float32, the drawing of random numbers included.  kornia draws its own in
each operation; ours come from the host in one block.  kornia has no random patch.  On a GPU, ours is also timed as a
captured CUDA graph; kornia's cannot be captured, since each operation picks the images that it changes on the host.
The two are taken in turns, so that a busy machine slows both.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import kornia.augmentation as kornia
import torch
from kornia.enhance import normalize
from torch import Tensor

from reid_edge.training.augment import Augmenter
from reid_edge.training.patches import ERASE_SHAPES
from reid_edge.training.sampling import numbers
from reid_edge.training.settings import AugmentSettings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((256, 128), (128, 64), (64, 32))
FLIP = {"flip": 0.5}
CROP = {"flip": 0.5, "translate": 0.5}
ERASE = {"erase": 0.5}
COLOURS = {"brightness": 0.2, "contrast": 0.15, "saturation": 0.1, "hue": 0.05}
PATCH = {"patch": 0.5}
SETS = {
    "flip": FLIP,
    "flip, translation crop": CROP,
    "erasing": ERASE,
    "colours": COLOURS,
    "flip, crop, colours, erasing": CROP | COLOURS | ERASE,
    "patch": PATCH,
    "flip, crop, patch (scratch)": CROP | PATCH,
}


def ours(settings: AugmentSettings, pixels: Tensor, *, graph: bool) -> Callable[[], object]:
    device = pixels.device
    augmenter = Augmenter(settings, tuple(pixels.shape[2:]), MEAN, STD, device)
    drawn = numbers(1, 0, len(pixels), augmenter.columns).to(device)
    partners = pixels.roll(1, 0)
    replay = captured(lambda: augmenter(pixels, drawn, partners)) if graph else None

    def run(step: int = 1) -> object:
        drawn.copy_(numbers(1, step, len(pixels), augmenter.columns), non_blocking=True)
        return replay() if replay else augmenter(pixels, drawn, partners)

    return run


def captured(function: Callable[[], object]) -> Callable[[], object]:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def theirs(settings: AugmentSettings, pixels: Tensor) -> Callable[[], object] | None:
    if settings.patch:
        return None
    height, width = pixels.shape[2:]
    steps = []
    if settings.flip:
        steps.append(kornia.RandomHorizontalFlip(p=settings.flip))
    if settings.translate:
        part, shape = (8 / 9) ** 2, width / height
        crop = kornia.RandomResizedCrop((height, width), scale=(part, part), ratio=(shape, shape), p=settings.translate)
        steps.append(crop)
    if settings.brightness:
        steps.append(
            kornia.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue, p=1.0)
        )
    if settings.erase:
        steps.append(kornia.RandomErasing(ERASE_SHAPES.area, ERASE_SHAPES.aspect, value=0.45, p=settings.erase))
    pipeline = kornia.AugmentationSequential(*steps, data_keys=["input"]).to(pixels.device)
    mean, std = (torch.tensor(each, device=pixels.device) for each in (MEAN, STD))
    return lambda: normalize(pipeline(pixels.float() / 255), mean, std)


def milliseconds(runs: list[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 3):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 3:
                taken.append(time.perf_counter() - start)
    return [1000 * statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    columns = ["kornia", "ours"] + ["ours, graph"] * (device.type == "cuda")
    print(f"{name}, torch {torch.__version__}, batch {options.batch}, ms\n")
    print(f"| size | changes | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for size in SIZES:
        pixels = torch.randint(0, 256, (options.batch, 3, *size), dtype=torch.uint8, device=device)
        for label, changes in SETS.items():
            settings = AugmentSettings(**{"flip": 0.0, "translate": 0.0, "patch": 0.0} | changes)
            library = theirs(settings, pixels)
            graphs = [False, True] if device.type == "cuda" else [False]
            runs = [library] if library else []
            runs += [ours(settings, pixels, graph=graph) for graph in graphs]
            times = [f"{each:.2f}" for each in milliseconds(runs, options.rounds, device)]
            cells = times if library else ["–", *times]
            print(f"| {size[0]}×{size[1]} | {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
