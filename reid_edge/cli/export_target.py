"""``reid-edge export --for``: the files that other software takes of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reid_edge.console import console, extra, progress_bars
from reid_edge.runtime.target_folder import TargetName

if TYPE_CHECKING:
    from reid_edge.manifest import Precision
    from reid_edge.osnet.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """What ``export --for`` was asked for.

    Attributes:
        target: The software.
        bundle: Folder of the bundle.
        out: Folder of the target's files; None: beside the bundle, ``BUNDLE-TARGET``.
        precisions: Those wanted.
        checkpoint: The one that the bundle was made of, if it was given.
        crops: Folder of crops to calibrate with, if one was given.
        skip_bad: Leave out files of that folder that are no readable images.
        force: Replace the folder.
    """

    target: TargetName
    bundle: Path
    out: Path | None
    precisions: tuple[str, ...]
    checkpoint: Checkpoint | None
    crops: Path | None
    skip_bad: bool
    force: bool


def make_target(request: TargetRequest) -> None:
    """Make the files of a target, and print where they are and what to do next."""
    with extra("export", "exporting"):
        from reid_edge.export.targets.table import TARGETS, export_target, needs_calibration, target_calibration
    from reid_edge.bundle import open_bundle

    bundle = open_bundle(request.bundle)
    beside = bundle.path.resolve()  # "." has no name
    out = request.out or beside.with_name(f"{beside.name}-{request.target}")
    calibration = None
    if needs_calibration(request.target):
        with progress_bars() as notify:
            calibration = target_calibration(
                bundle, request.checkpoint, request.crops, notify, skip_bad=request.skip_bad
            )
    next_steps = export_target(
        bundle,
        request.target,
        out,
        precisions=cast("tuple[Precision, ...]", request.precisions),
        calibration=calibration,
        force=request.force,
    )
    console.print(f"{TARGETS[request.target].title}: {out}", soft_wrap=True)
    for step in next_steps:
        console.print(f"  {step}", soft_wrap=True, markup=False, highlight=False)
