"""The paper's Table 6 as bundles: four widths × four resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import cast

import torch

from reid_edge.bundle import MANIFEST, RANDOM_WEIGHTS, Bundle, Manifest, Precision, open_bundle
from reid_edge.errors import BundleCorruptError, OutputError, UsageError
from reid_edge.export.exporter import ONNX_FILES, ExportOptions, Format, export_bundle
from reid_edge.osnet.architecture import OSNetConfig, format_size, size_of_resolution
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.osnet.network import OSNet
from reid_edge.progress import Notify

#: β and γ of Table 6, in its order.
WIDTHS = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS = (1.0, 0.75, 0.5, 0.25)
SEED = 0
_FORMATS: dict[str, Format] = {"onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the grid.

    Attributes:
        path: Its bundle's folder.
        forms: ``engine/precision`` of all that it holds once it is made.
        checkpoint: Its weights.
        options: How to export it; None: it is there, and right.
    """

    path: Path
    forms: tuple[str, ...]
    checkpoint: Checkpoint
    options: ExportOptions | None


def make_grid(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    notify: Notify,
    *,
    precisions: tuple[Precision, ...] = ("fp32",),
    formats: tuple[Format, ...] = ("onnx", "openvino"),
) -> list[Path]:
    """Make a bundle for each cell of Table 6: :func:`plan_grid`, then :func:`make_cells`."""
    return make_cells(plan_grid(folder, checkpoints, precisions=precisions, formats=formats), notify)


def plan_grid(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    *,
    precisions: tuple[Precision, ...] = ("fp32",),
    formats: tuple[Format, ...] = ("onnx", "openvino"),
) -> list[Cell]:
    """What is to be done for each cell of Table 6, one folder each; cells that are there and right are kept.

    An interrupted grid can so be taken up again.  A cell that lacks a form, or has a file that is missing or changed,
    is exported anew with what it held and what is asked for.

    Args:
        folder: Where the 16 bundles go: ``osnet_x1_256x128`` …; made if need be.
        checkpoints: Trained weights, used for the cell of their width *and* training size; the first that fits.
            Every other cell gets random weights (seed 0).
        precisions: ``fp32`` is always made.  INT8 of random weights needs calibration crops made from them: minutes.
        formats: ``onnx`` is always made.

    Returns:
        The cells, β falling, and for each β γ falling.

    Raises:
        UsageError: A precision that an export does not make: tuned files come from ``reid-edge tune``.
        BundleError: A cell's manifest cannot be read.
        OutputError: A cell's folder holds something that must not be replaced.
    """
    if not set(precisions) <= set(ONNX_FILES):
        raise UsageError(
            f"a grid is made in {', '.join(ONNX_FILES)}; got {', '.join(precisions)}. Leave the others out."
        )
    precisions = cast(tuple[Precision, ...], tuple(dict.fromkeys(("fp32", *precisions))))
    formats = cast(tuple[Format, ...], tuple(dict.fromkeys(("onnx", *formats))))
    cells = []
    for width, gamma in product(WIDTHS, RESOLUTIONS):
        size = size_of_resolution(gamma)
        options = ExportOptions(
            out=folder / cell_name(width, size), size=size, formats=formats, precisions=precisions, time_files=False
        )
        cells.append(_plan_cell(_weights(width, size, checkpoints), options))
    return cells


def make_cells(cells: Sequence[Cell], notify: Notify) -> list[Path]:
    """Export the cells that are not there.

    Args:
        cells: From :func:`plan_grid`.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Returns:
        The bundles' folders, in the order of the cells.

    Raises:
        OutputError: A cell's folder cannot be written.
    """
    on_step = notify("exporting the cells of Table 6", len(cells))
    for cell in cells:
        if cell.options is not None:
            export_bundle(cell.checkpoint, cell.options, notify)
        on_step()
    return [cell.path for cell in cells]


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


def _plan_cell(checkpoint: Checkpoint, options: ExportOptions) -> Cell:
    """Keep a cell that is there, whole and with all that is asked for; export any other."""
    if not (options.out / MANIFEST).is_file():
        return _cell_to_make(checkpoint, options)
    bundle = open_bundle(options.out)
    held = bundle.manifest
    same = held.model.checkpoint_sha256 == checkpoint.sha256 and held.input.size == options.size
    names = tuple(artifact.name for artifact in held.artifacts)
    if same and _forms(options) <= set(names) and _is_whole(bundle):
        return Cell(path=options.out, forms=names, checkpoint=checkpoint, options=None)
    if same:
        options = _with_held_forms(options, held)
    _check_replaceable(held, _forms(options), options.out, same=same)
    return _cell_to_make(checkpoint, replace(options, force=True))


def _cell_to_make(checkpoint: Checkpoint, options: ExportOptions) -> Cell:
    return Cell(path=options.out, forms=tuple(sorted(_forms(options))), checkpoint=checkpoint, options=options)


def _is_whole(bundle: Bundle) -> bool:
    try:
        for entry in bundle.manifest.entries():
            bundle.checked_path(entry)
    except BundleCorruptError:
        return False
    return True


def _check_replaceable(held: Manifest, remade: set[str], out: Path, *, same: bool) -> None:
    """Refuse to lose what the grid cannot make again.

    Exports of random weights can always be made again, trained weights' only from the same weights.  Nothing else can:
    tuned files, TensorRT plans, INT8 of the caller's crops.
    """
    if held.model.dataset == RANDOM_WEIGHTS:
        remade = {f"{engine}/{precision}" for engine, precision in product(_FORMATS, ONNX_FILES)}
    elif not same:
        remade = set()
    lost = [artifact.name for artifact in held.artifacts if artifact.name not in remade]
    if held.calibration is not None and held.calibration.source == "crops":
        lost.append("INT8 calibrated with your crops")
    if lost:
        raise OutputError(
            f"{out} holds forms ({held.model.dataset}) that the grid would lose by making its own there: "
            f"{', '.join(lost)}. Name another folder for the grid, or move that bundle away."
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
