"""The paper's Table 6 as bundles: four widths × four resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import cast

import torch

from reid_edge.bundle import MANIFEST, RANDOM_WEIGHTS, Manifest, Precision, open_bundle
from reid_edge.errors import ConfigError, OutputError
from reid_edge.export.calibration import Notify
from reid_edge.export.exporter import ONNX_FILES, ExportOptions, Format, export_bundle
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.osnet.config import OSNetConfig, format_size, size_of_resolution
from reid_edge.osnet.network import OSNet

#: β and γ of Table 6, in its order.
WIDTHS = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS = (1.0, 0.75, 0.5, 0.25)
SEED = 0
_FORMATS: dict[str, Format] = {"onnxruntime": "onnx", "openvino": "openvino"}


def make_grid(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    notify: Notify,
    *,
    precisions: tuple[Precision, ...] = ("fp32",),
    formats: tuple[Format, ...] = ("onnx", "openvino"),
) -> list[Path]:
    """Make a bundle for each cell of Table 6, one folder each; cells that are there and right are kept.

    An interrupted grid can so be taken up again.  A cell that lacks a form is exported anew with what it held and
    what is asked for.

    Args:
        folder: Where the 16 bundles go: ``osnet_x1_256x128`` …; made if need be.
        checkpoints: Trained weights, used for the cell of their width *and* training size; the first that fits.
            Every other cell gets random weights (seed 0).
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        precisions: ``fp32`` is always made.  INT8 of random weights needs calibration crops made from them: minutes.
        formats: ``onnx`` is always made.

    Returns:
        The bundles' folders, β falling, and for each β γ falling.

    Raises:
        ConfigError: A precision that an export does not make: tuned files come from ``reid-edge tune``.
        OutputError: A cell's folder holds something that must not be replaced, or cannot be written.
    """
    if not set(precisions) <= set(ONNX_FILES):
        raise ConfigError(
            f"a grid is made in {', '.join(ONNX_FILES)}; got {', '.join(precisions)}. Leave the others out."
        )
    precisions = cast(tuple[Precision, ...], tuple(dict.fromkeys(("fp32", *precisions))))
    formats = cast(tuple[Format, ...], tuple(dict.fromkeys(("onnx", *formats))))
    cells = [(width, size_of_resolution(gamma)) for width, gamma in product(WIDTHS, RESOLUTIONS)]
    on_step = notify("exporting the cells of Table 6", len(cells))
    paths = []
    for width, size in cells:
        options = ExportOptions(
            out=folder / cell_name(width, size), size=size, formats=formats, precisions=precisions, time_files=False
        )
        _make_cell(_weights(width, size, checkpoints), options, notify)
        paths.append(options.out)
        on_step()
    return paths


def cell_name(width: float, size: tuple[int, int]) -> str:
    """A cell's folder, named as ``reid-edge export`` names a bundle."""
    return f"osnet_x{width:g}".replace(".", "_") + f"_{format_size(size)}"


def random_checkpoint(width: float, size: tuple[int, int]) -> Checkpoint:
    """Weights as PyTorch initialises them, the same every time; the global random state is left as it was."""
    info = CheckpointInfo(width=width, size=size, dataset=RANDOM_WEIGHTS, recipe=f"torch.manual_seed({SEED})")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Checkpoint(info, OSNet(info.config).state_dict())


def _weights(width: float, size: tuple[int, int], checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    wanted = OSNetConfig(width=width, size=size)
    trained = (checkpoint for checkpoint in checkpoints if checkpoint.info.config == wanted)
    return next(trained, None) or random_checkpoint(width, size)


def _make_cell(checkpoint: Checkpoint, options: ExportOptions, notify: Notify) -> None:
    """Export one cell unless it is there already."""
    if not (options.out / MANIFEST).is_file():
        export_bundle(checkpoint, options, notify)
        return
    held = open_bundle(options.out).manifest
    same = held.model.checkpoint_sha256 == checkpoint.sha256 and held.input.size == options.size
    if same and _forms(options) <= {artifact.name for artifact in held.artifacts}:
        return
    if same:
        options = _with_held_forms(options, held)
    _check_replaceable(held, _forms(options) if same else set(), options.out)
    export_bundle(checkpoint, replace(options, force=True), notify)


def _check_replaceable(held: Manifest, remade: set[str], out: Path) -> None:
    """Random weights are replaced by anything, trained ones only by all the forms that they had."""
    if held.model.dataset == RANDOM_WEIGHTS:
        return
    lost = [artifact.name for artifact in held.artifacts if artifact.name not in remade]
    if held.calibration is not None and held.calibration.source == "crops":
        lost.append("INT8 calibrated with your crops")
    if lost:
        raise OutputError(
            f"{out} holds trained weights ({held.model.dataset}) in forms that the grid would lose by making its own "
            f"there: {', '.join(lost)}. Name another folder for the grid, or move that bundle away."
        )


def _with_held_forms(options: ExportOptions, held: Manifest) -> ExportOptions:
    """With the forms of the bundle that is there added to those asked for."""
    again = [artifact for artifact in held.artifacts if artifact.engine in _FORMATS and artifact.precision != "tuned"]
    return replace(
        options,
        precisions=tuple(dict.fromkeys((*options.precisions, *(artifact.precision for artifact in again)))),
        formats=tuple(dict.fromkeys((*options.formats, *(_FORMATS[artifact.engine] for artifact in again)))),
    )


def _forms(options: ExportOptions) -> set[str]:
    """``engine/precision`` of everything that an export makes, and runs, with these options."""
    engines = [engine for engine, name in _FORMATS.items() if name in options.formats]
    return {f"{engine}/{precision}" for engine, precision in product(engines, options.precisions)}
