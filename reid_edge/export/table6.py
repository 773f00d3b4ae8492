"""Export the paper's Table 6: a bundle for each of four widths × four resolutions, for ``reid-edge benchmark --grid``.

One network is exported by :mod:`reid_edge.export.exporter`; this decides for 16 which are there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import cast

import torch

from reid_edge.bundle import MANIFEST, Bundle, open_bundle
from reid_edge.errors import BundleCorruptError, OutputError, UsageError
from reid_edge.export.exporter import ONNX_FILES, ExportOptions, Format, export_bundle, makable
from reid_edge.manifest import RANDOM_WEIGHTS, EngineName, Manifest, Precision
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig, format_size, size_of_resolution
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.osnet.network import OSNet
from reid_edge.progress import Notify
from reid_edge.types import Size

#: β and γ of Table 6, in its order.
WIDTHS = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS = (1.0, 0.75, 0.5, 0.25)
#: The network of every cell.
VARIANT = NetworkVariant()
SEED = 0
_FORMATS: dict[EngineName, Format] = {"native": "native", "onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the table.

    Attributes:
        path: Its bundle's folder.
        artifacts: ``engine/precision`` of all that it holds once it is made.
        checkpoint: Its weights.
        options: How to export it; None where it is there, and right.
    """

    path: Path
    artifacts: tuple[str, ...]
    checkpoint: Checkpoint
    options: ExportOptions | None


def make_table(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    notify: Notify,
    *,
    precisions: tuple[Precision, ...] = ("fp32",),
    formats: tuple[Format, ...] = ("onnx", "openvino"),
) -> list[Path]:
    """Make a bundle for each cell of Table 6: :func:`plan_table`, then :func:`make_cells`."""
    return make_cells(plan_table(folder, checkpoints, precisions=precisions, formats=formats), notify)


def plan_table(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    *,
    precisions: tuple[Precision, ...] = ("fp32",),
    formats: tuple[Format, ...] = ("onnx", "openvino"),
) -> list[Cell]:
    """Decide what is to be done for each cell of Table 6, one folder each; cells that are there and right are kept.

    An interrupted export of the table so goes on where it was.  A cell that lacks a file that is asked for, or has one
    that is missing or changed, is exported anew with what it held and what is asked for.

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
            f"Table 6 is exported in {', '.join(ONNX_FILES)}; got {', '.join(precisions)}. Leave the others out."
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
        cells: From :func:`plan_table`.
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


def cell_name(width: float, size: Size) -> str:
    """Name a cell's folder as ``reid-edge export`` does."""
    return f"osnet_x{width:g}".replace(".", "_") + f"_{format_size(size)}"


def random_checkpoint(width: float, size: Size) -> Checkpoint:
    """Make weights as PyTorch initialises them, the same every time; the global random state is left as it was."""
    info = CheckpointInfo(
        width=width, size=size, variant=VARIANT, dataset=RANDOM_WEIGHTS, recipe=f"torch.manual_seed({SEED})"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Checkpoint(info, OSNet(info.config).state_dict())


def _weights(width: float, size: Size, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    wanted = OSNetConfig(width=width, size=size, variant=VARIANT)
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
    if same and _artifacts(options) <= set(names) and _is_whole(bundle):
        return Cell(path=options.out, artifacts=names, checkpoint=checkpoint, options=None)
    if same:
        options = _with_held_artifacts(options, held)
    _check_replaceable(held, _artifacts(options), options.out, same=same)
    return _cell_to_make(checkpoint, replace(options, force=True))


def _cell_to_make(checkpoint: Checkpoint, options: ExportOptions) -> Cell:
    return Cell(path=options.out, artifacts=tuple(sorted(_artifacts(options))), checkpoint=checkpoint, options=options)


def _is_whole(bundle: Bundle) -> bool:
    try:
        bundle.check_files()
    except BundleCorruptError:
        return False
    return True


def _check_replaceable(held: Manifest, remade: set[str], out: Path, *, same: bool) -> None:
    """Refuse to lose what this export cannot make again.

    Exports of random weights can always be made again, trained weights' only from the same weights.  Nothing else can:
    tuned files, TensorRT plans, INT8 of the caller's crops.
    """
    if held.model.dataset == RANDOM_WEIGHTS:
        remade = _makable(_FORMATS, tuple(ONNX_FILES))
    elif not same:
        remade = set()
    lost = [artifact.name for artifact in held.artifacts if artifact.name not in remade]
    if held.calibration is not None and held.calibration.source == "crops":
        lost.append("INT8 calibrated with your crops")
    if lost:
        raise OutputError(
            f"{out} holds files ({held.model.dataset}) that exporting Table 6 there would lose: "
            f"{', '.join(lost)}. Name another folder for --grid, or move that bundle away."
        )


def _with_held_artifacts(options: ExportOptions, held: Manifest) -> ExportOptions:
    """Add what the bundle that is there holds to what is asked for."""
    again = [artifact for artifact in held.artifacts if artifact.engine in _FORMATS and artifact.precision != "tuned"]
    return replace(
        options,
        precisions=tuple(dict.fromkeys((*options.precisions, *(artifact.precision for artifact in again)))),
        formats=tuple(dict.fromkeys((*options.formats, *(_FORMATS[artifact.engine] for artifact in again)))),
    )


def _artifacts(options: ExportOptions) -> set[str]:
    """Name ``engine/precision`` of everything that an export makes, and runs, with these options."""
    return _makable([engine for engine, name in _FORMATS.items() if name in options.formats], options.precisions)


def _makable(engines: Iterable[EngineName], precisions: Sequence[Precision]) -> set[str]:
    return {
        f"{engine}/{precision}"
        for engine in engines
        for precision in precisions
        if precision in makable(_FORMATS[engine])
    }
