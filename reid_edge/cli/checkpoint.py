"""``reid-edge import`` and ``complexity``: checkpoints of torchreid, and the cost of a network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from reid_edge.cli.shared_options import ForceOption, WidthOption
from reid_edge.console import console, extra, print_table, say
from reid_edge.errors import UsageError


def import_checkpoint(
    source: Annotated[
        Path, typer.Argument(help="Weights of an OSNet: torchreid's .pth or .pth.tar, or another trainer's file.")
    ],
    out: Annotated[Path | None, typer.Option(help="The .safetensors to write. Default: named like SOURCE.")] = None,
    width: WidthOption = None,
    size: Annotated[str, typer.Option(help="Input size it was trained at, HEIGHTxWIDTH in pixels.")] = "256x128",
    dataset: Annotated[str, typer.Option(help="Dataset it was trained on.")] = "unknown",
    weights: Annotated[
        str | None, typer.Option(help="Key of the weights in the file, e.g. model_ema, if it holds several.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Convert a torchreid OSNet checkpoint to reid-edge's format; every tensor must fit."""
    with extra("export", "importing a checkpoint"):
        from reid_edge.osnet.architecture import parse_size
        from reid_edge.osnet.checkpoint import save_checkpoint
        from reid_edge.osnet.torchreid import import_torchreid

    target = out or _target(source)
    checkpoint = import_torchreid(source, width=width, size=parse_size(size), dataset=dataset, weights=weights, say=say)
    save_checkpoint(checkpoint, target, force=force)
    console.print(
        f"{target}: OSNet x{checkpoint.info.width:g} {checkpoint.info.variant}".rstrip()
        + f", sha256 of the weights {checkpoint.sha256}\n"
        f"Next: reid-edge export --checkpoint {shlex.quote(str(target))}",
        soft_wrap=True,
    )


def _target(source: Path) -> Path:
    """Return the default name of an imported checkpoint, in this folder; it is never that of the source."""
    stem = source.name.removesuffix(".tar")
    for suffix in (".pth", ".pt", ".ckpt", ".bin", ".safetensors"):
        stem = stem.removesuffix(suffix)
    return Path(f"{stem}_imported.safetensors" if source.suffix == ".safetensors" else f"{stem}.safetensors")


def complexity(
    width: Annotated[
        list[float] | None, typer.Option(help="Width multiplier β. May be repeated. Default: 1, 0.75, 0.5, 0.25.")
    ] = None,
    resolution: Annotated[
        list[float] | None, typer.Option(help="Resolution multiplier γ. May be repeated. Default: 1, 0.75, 0.5, 0.25.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input size instead of --resolution, HEIGHTxWIDTH in pixels.")
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Count the mult-adds of this ONNX file instead; needs no torch.")
    ] = None,
) -> None:
    """Print the parameters and mult-adds of OSNet; without options, the paper's Table 6."""
    if onnx is not None:
        from reid_edge.benchmark.onnx_complexity import onnx_mult_adds

        print_table(str(onnx), ("file", "mult-adds"), [[onnx.name, f"{onnx_mult_adds(onnx) / 1e6:,.1f}M"]])
        return
    with extra("export", "counting a network (an ONNX file needs only the extra 'onnx')"):
        from reid_edge.osnet.architecture import OSNetConfig, format_size, parse_size, size_of_resolution
        from reid_edge.osnet.complexity import complexity as count

    if size is not None and resolution:
        raise UsageError("give --size or --resolution, not both.")
    widths = width or [1.0, 0.75, 0.5, 0.25]
    sizes = [parse_size(size)] if size else [size_of_resolution(one) for one in resolution or [1.0, 0.75, 0.5, 0.25]]
    rows = []
    for beta in widths:
        counted = [count(OSNetConfig(width=beta, size=one)) for one in sizes]
        rows.append(
            [f"{beta:g}", f"{counted[0].parameters / 1e6:.1f}M", *(f"{c.mult_adds / 1e6:,.1f}M" for c in counted)]
        )
    print_table("mult-adds of one crop", ("β", "parameters", *map(format_size, sizes)), rows)
