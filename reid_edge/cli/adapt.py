"""``reid-edge adapt``: give a checkpoint the batch-norm statistics of a place."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from reid_edge.cli.camera import Assignments, Config, DetectorName
from reid_edge.cli.place_crops import CameraOptions, PlaceSeconds, PlaceSources, video_crops
from reid_edge.cli.shared_options import ForceOption, SkipBadOption
from reid_edge.console import console, extra, print_table, progress_bars, say
from reid_edge.errors import AdaptationError, UsageError
from reid_edge.redaction import redacted
from reid_edge.system.private_memory import keep_memory_private

if TYPE_CHECKING:
    from reid_edge.osnet.adaptation import Adapted
    from reid_edge.osnet.checkpoint import Checkpoint
    from reid_edge.progress import Notify
    from reid_edge.types import Image, Size

#: Layers in the report.
MOST_LAYERS = 5
#: Change of a layer's mean that the report counts, in standard deviations.
FAR = 0.05


def adapt(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="Checkpoint to adapt, or the folder of a bundle that was made from one."
        ),
    ],
    crops: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of person crops of this place, one person each, no labels. May be repeated."),
    ] = None,
    source: PlaceSources = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint of the bundle. Default: the one that ships, if the bundle was made from that."),
    ] = None,
    place: Annotated[str, typer.Option(help="Name of the place, for the model's record.")] = "this place",
    detector: DetectorName = None,
    config: Config = None,
    set_: Assignments = None,
    seconds: PlaceSeconds = None,
    out: Annotated[
        Path | None, typer.Option(help="The .safetensors to write. Default: NAME_adapted.safetensors, in this folder.")
    ] = None,
    skip_bad: SkipBadOption = False,
    force: ForceOption = False,
) -> None:
    """Adapt a checkpoint to a place by the statistics of unlabelled crops, which are not stored.

    The result is another model: export it, compare it by 'reid-edge evaluate' if you have labels, and give it to all
    cameras of the place. Features of the two models cannot be compared; 'gallery migrate' brings old ones over.
    """
    if not crops and not source:
        raise UsageError("give --crops FOLDER of person crops of this place, or --source VIDEO of it.")
    keep_memory_private()
    with extra("export", "adapting a checkpoint"):
        from reid_edge.files import check_output
        from reid_edge.osnet.adaptation import MAX_CROPS, check_crops, different_crops
        from reid_edge.osnet.adaptation import adapt as adapted_to
        from reid_edge.osnet.checkpoint import Adaptation, save_checkpoint

    loaded = _checkpoint(model, checkpoint)
    target = out or Path(
        f"{model.resolve().name.removesuffix('.safetensors').removesuffix('.pth')}_adapted.safetensors"
    )
    check_output(target, force=force, parents=True)
    camera = CameraOptions(config, detector, tuple(set_ or ()), seconds)
    with progress_bars() as notify:
        pictures, origins = _folder_crops(crops or [], loaded.info.size, MAX_CROPS, notify, skip_bad=skip_bad)
        videos = source or []
        if videos and len(pictures) >= MAX_CROPS:
            say(f"note: the folders have {MAX_CROPS:,} crops, the most that are used: no --source is looked at.")
            videos = []
        for number, uri in enumerate(videos):
            share = -(-(MAX_CROPS - len(pictures)) // (len(videos) - number))
            found = video_crops(uri, model, loaded.info.size, share, camera, notify)
            pictures += found.crops
            origins.append(f"{found.tracks:,} tracks of {redacted(uri)}")
        pictures = different_crops(pictures)
        check_crops(len(pictures), of_videos=bool(videos))
        about = Adaptation(place=place, origin=", ".join(origins), created=_now())
        done = adapted_to(loaded, np.stack(pictures), about, notify)
    save_checkpoint(done.checkpoint, target, force=force)
    _report(loaded, done, target, len(origins))


def _checkpoint(model: Path, checkpoint: Path | None) -> Checkpoint:
    """Load the checkpoint that is named, or that a bundle was made from.

    Raises:
        UsageError: A checkpoint is given twice.
        AdaptationError: The bundle was made from another one.
    """
    from reid_edge.osnet.shipped import find_checkpoint, shipped_checkpoints

    if not model.is_dir():
        if checkpoint is not None:
            raise UsageError(f"{model} is a checkpoint already: leave out --checkpoint, which is for a bundle.")
        return find_checkpoint(model, None, say)
    from reid_edge.bundle import open_bundle

    manifest = open_bundle(model).manifest
    candidates = shipped_checkpoints() if checkpoint is None else [find_checkpoint(checkpoint, None, say)]
    for candidate in candidates:
        if candidate.sha256 == manifest.model.checkpoint_sha256:
            return candidate.at_size(manifest.input.size)
    given = "it is none that ships" if checkpoint is None else f"{checkpoint} is another: {candidates[0].sha256[:12]}…"
    raise AdaptationError(
        f"{model} was made from the checkpoint {manifest.model.checkpoint_sha256[:12]}…, and {given}. A bundle alone "
        "cannot be adapted: its batch norms are folded into its weights. Give the file: --checkpoint FILE"
    )


def _folder_crops(
    folders: list[Path], size: Size, most: int, notify: Notify, *, skip_bad: bool
) -> tuple[list[Image], list[str]]:
    """Read crops, resized; of more than ``most`` an even sample.

    Raises:
        FrameError: There is no such folder, or a file is no readable picture.
    """
    from reid_edge.crops import resize_into
    from reid_edge.images import left_out, list_images, read_images

    if not folders:
        return [], []
    paths = list_images(folders)
    chosen = sorted(np.random.default_rng(0).permutation(len(paths))[:most].tolist())
    step = notify("reading crops", len(chosen))
    pictures, unreadable = [], []
    for path, image in read_images([paths[row] for row in chosen], skip_bad=skip_bad):
        step()
        if image is None:
            unreadable.append(path)
            continue
        pictures.append(np.empty((*size, 3), np.uint8))
        resize_into(image, pictures[-1])
    if unreadable:
        say(left_out(unreadable, len(chosen)))
    return pictures, [str(folder) for folder in folders]


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _report(before: Checkpoint, done: Adapted, target: Path, origins: int) -> None:
    """Print what changed, and what to do next."""
    farthest = sorted(done.layers, key=lambda layer: -layer.mean)[:MOST_LAYERS]
    rows = [[layer.name, f"{layer.mean:.2f}", f"{layer.spread:.2f}"] for layer in farthest]
    moved = sum(layer.mean >= FAR for layer in done.layers)
    print_table(
        f"{moved} of {len(done.layers)} batch norms moved by {FAR} standard deviations or more; the farthest:",
        ("layer", "mean moved, std", "std, new / old"),
        rows,
    )
    info = done.checkpoint.info
    console.print(
        f"features of these crops: cosine {done.cosine:.3f} with those of the old model; two different crops have "
        f"{done.similarity[1]:.3f} on average, {done.similarity[0]:.3f} before\n"
        f"{target}: OSNet x{info.width:g}, sha256 of the weights {done.checkpoint.sha256} (was {before.sha256[:12]}…); "
        f"adapted {info.adaptations[-1]}\n"
        "The crops were not stored. Only labels can tell whether it is better here: reid-edge evaluate\n"
        f"Next: reid-edge export --checkpoint {shlex.quote(str(target))}",
        soft_wrap=True,
    )
    if origins == 1:
        console.print(
            "note: these crops are of one folder or video. If other cameras shall use the model too, adapt it with "
            "crops of all of them: features of different models cannot be compared.",
            soft_wrap=True,
        )
