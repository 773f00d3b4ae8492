"""Compute the features of training images with another re-identification network, for `reid-edge train --teacher`.

    python models/teacher_features.py NETWORK.xml --dataset market1501 --root MARKET1501 --out teacher.npy

NETWORK is an OpenVINO or ONNX file with one image input N×3×H×W and one output N×D, as those of Open Model Zoo
(person-reidentification-retail-0277: Apache-2.0).  It takes BGR pixels from 0 to 255, or with
--rgb and --mean and --std others.  A feature is the mean of those of the image and of its mirror image.  Beside
teacher.npy, teacher.sources.txt has the paths of the images: those of the train split, of which datasets with random
splits have several (--split), or of all splits (--combineall).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import openvino

from reid_edge.console import console, progress_bars, run_script
from reid_edge.datasets.combined import load_combined
from reid_edge.datasets.loading import load_split
from reid_edge.errors import EngineError
from reid_edge.features import check_feature_file, l2_normalised, write_features
from reid_edge.images import read_image
from reid_edge.progress import Notify

#: Images that go through the network at once.
BATCH = 16
Floats = npt.NDArray[np.float32]


def main() -> None:
    """Compute and write the features."""
    arguments = parsed()
    check_feature_file(arguments.out, force=arguments.force)
    if arguments.combineall:
        images = load_combined(arguments.dataset, arguments.root, partial=arguments.partial)
    else:
        images = load_split(
            arguments.dataset, arguments.root, "train", partial=arguments.partial, number=arguments.split
        )
    with progress_bars() as notify:
        paths = [image.path for image in images]
        found = features(arguments.network, paths, notify, rgb=arguments.rgb, mean=arguments.mean, std=arguments.std)
    write_features(arguments.out, [str(path) for path in paths], found, "")
    console.print(f"{found.shape[0]} features of {found.shape[1]} numbers in {arguments.out}", soft_wrap=True)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="OpenVINO .xml or ONNX file")
    parser.add_argument("--dataset", default="market1501", help="name of the dataset (docs/datasets.md)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npy")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--split", type=int, default=0, help="number of the random split, as data.split of the training")
    which.add_argument("--combineall", action="store_true", help="query and gallery too, as data.combineall")
    parser.add_argument("--partial", action="store_true", help="do not check the number of images")
    parser.add_argument("--rgb", action="store_true", help="the network takes RGB, not BGR")
    parser.add_argument("--mean", type=float, nargs=3, default=[0, 0, 0], help="subtracted from pixels, in its order")
    parser.add_argument("--std", type=float, nargs=3, default=[1, 1, 1], help="pixels are divided by it, in its order")
    parser.add_argument("--force", action="store_true", help="replace the output")
    return parser.parse_args()


def features(
    network: Path, paths: Sequence[Path], notify: Notify, *, rgb: bool, mean: Sequence[float], std: Sequence[float]
) -> Floats:
    """Return the features of images: N×D float32, unit length.

    Raises:
        EngineError: The file cannot be read, or has other inputs or outputs.
        ImageError: An image cannot be read.
    """
    compiled, (height, width) = opened(network)
    done = notify("the teacher looks at the images", len(paths))
    found: dict[int, Floats] = {}
    queue = openvino.AsyncInferQueue(compiled)
    queue.set_callback(lambda request, start: found.__setitem__(start, request.get_output_tensor(0).data.copy()))
    for start in range(0, len(paths), BATCH // 2):
        crops = [cv2.resize(read_image(path), (width, height)) for path in paths[start : start + BATCH // 2]]
        pixels = np.stack([*crops, *(crop[:, ::-1] for crop in crops)])
        pixels = pixels[..., ::-1] if rgb else pixels
        values = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
        queue.start_async({0: np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)}, start)
        done(len(crops))
    queue.wait_all()
    both = [found[start].reshape(2, -1, found[start].shape[-1]) for start in sorted(found)]
    return l2_normalised(np.concatenate([l2_normalised(one[0]) + l2_normalised(one[1]) for one in both]))


def opened(network: Path) -> tuple[openvino.CompiledModel, tuple[int, int]]:
    """Compile a network for batches of any size; return it with the height and width of its input."""
    core = openvino.Core()
    try:
        model = core.read_model(network)
        shape = model.input().partial_shape
        height, width = shape[2].get_length(), shape[3].get_length()
        model.reshape([-1, 3, height, width])
        compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    except RuntimeError as error:
        raise EngineError(
            f"{network} cannot be used ({str(error).strip().splitlines()[-1]}); give a network with one input "
            "N×3×H×W and one output N×D."
        ) from error
    return compiled, (height, width)


if __name__ == "__main__":
    run_script(main)
