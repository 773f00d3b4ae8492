"""``reid-edge export`` and ``build``: from a checkpoint to a bundle, and to the plans of one device."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from reid_edge.cli.bundle import BUNDLE_HEADERS, bundle_rows
from reid_edge.cli.export_target import TargetRequest, make_target
from reid_edge.cli.shared_options import (
    BundleArgument,
    ForceOption,
    SkipBadOption,
    TrustedKeyOption,
    WidthOption,
    choices,
)
from reid_edge.console import console, extra, print_table, progress_bars, say
from reid_edge.errors import OutputError, ReidEdgeError, UsageError
from reid_edge.manifest import Precision
from reid_edge.runtime.target_folder import TargetName

if TYPE_CHECKING:
    from reid_edge.export.exporter import ExportOptions
    from reid_edge.export.onnx import InputFormat
    from reid_edge.osnet.checkpoint import Checkpoint
    from reid_edge.types import Size

_NEW_SITE = "new-site"
_FORMATS = ("onnx", "openvino", "native", "tensorrt")


def export(
    width: WidthOption = None,
    resolution: Annotated[
        float | None, typer.Option(help="Resolution multiplier γ: the input is γ times 256x128.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input size, HEIGHTxWIDTH in pixels. Default: the checkpoint's.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A reid-edge .safetensors or torchreid .pth. Default: the shipped one of --width."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(help="One or more of onnx,openvino,native,tensorrt. Default: all that this machine can make."),
    ] = None,
    precision: Annotated[str, typer.Option(help="One or more of fp32,fp16,int8.")] = "fp32,fp16,int8",
    calibration: Annotated[
        str, typer.Option(help="Folder of person crops for INT8, or 'default', which needs none.")
    ] = "default",
    skip_bad: SkipBadOption = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write the bundle to. Default: ./osnet_x….")] = None,
    input_format: Annotated[
        Literal["pixels", "tensor"],
        typer.Option(
            "--input",
            help="What the files take. pixels: uint8 NHWC BGR, normalised inside; tensor: normalised float32 NCHW RGB.",
        ),
    ] = "pixels",
    target_cpu: Annotated[
        Literal["any", "vnni"],
        typer.Option(help="CPUs that INT8 files are for: any, or only x86 with VNNI (uses the full INT8 range)."),
    ] = "any",
    norm: Annotated[
        Literal["l2", "none"], typer.Option(help="l2: scale features to unit length; none: leave them as they are.")
    ] = "l2",
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Largest batch, crops, that every file takes.")] = 32,
    keep_rejected: Annotated[
        bool, typer.Option("--keep-rejected", help="Keep INT8 files that change the ranking too much.")
    ] = False,
    latency: Annotated[bool, typer.Option(help="Time every file after the export.")] = True,
    purpose: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="new-site: take the shipped checkpoint that is best on cameras which no training has seen. "
            f"One of {', '.join(get_args(TargetName))}: also make the files that this software takes, in the folder "
            "BUNDLE-TARGET.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="With --for: take this bundle and export none; --out is the folder of the software's files."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Make a bundle from a checkpoint: ONNX, OpenVINO and TensorRT files, each checked against the checkpoint."""
    precisions = choices(precision, ("fp32", "fp16", "int8"), "--precision")
    crops = None if calibration == "default" else Path(calibration)
    new_site, target = _purposes(purpose)
    if new_site and (checkpoint is not None or bundle is not None):
        raise UsageError("--for new-site chooses a shipped checkpoint: give --width, and no file or bundle.")
    loaded = None if width is None and checkpoint is None else _checkpoint(checkpoint, width, new_site=new_site)
    made = bundle
    if made is None:
        if loaded is None:
            raise UsageError(
                "give --width β too, of the checkpoint for new sites: 0.25 ships with reid-edge."
                if new_site
                else "give --width β (0.25 ships with reid-edge), or --checkpoint FILE."
            )
        with extra("export", "exporting"):
            from reid_edge.export.exporter import ExportOptions, Format

        input_size, obstacles = _input_size(loaded, size, resolution), _obstacles(loaded, input_format)
        options = ExportOptions(
            out=out or _usual_name(loaded, input_size),
            size=input_size,
            formats=cast(tuple[Format, ...], _formats(formats, target, obstacles)),
            precisions=cast(tuple[Precision, ...], precisions),
            calibration=crops,
            skip_bad=skip_bad,
            input_format=input_format,
            target_cpu=target_cpu,
            norm=norm,
            max_batch=max_batch,
            force=force,
            keep_rejected=keep_rejected,
            time_files=latency,
        )
        made = _exported(loaded, options, {} if target else obstacles)
    elif target is None:
        raise UsageError("--bundle is what --for takes: give --for TARGET too.")
    if target:
        make_target(
            TargetRequest(
                target=target,
                bundle=made,
                out=out if bundle else None,
                precisions=precisions,
                checkpoint=loaded,
                crops=crops,
                skip_bad=skip_bad,
                force=force,
            )
        )


def _input_size(loaded: Checkpoint, size: str | None, resolution: float | None) -> Size:
    """Return the input size that was asked for, or else the checkpoint's.

    Raises:
        UsageError: Both options are given.
        ConfigError: One of them is no size.
    """
    from reid_edge.osnet.architecture import parse_size, size_of_resolution

    if size is not None and resolution is not None:
        raise UsageError("give --size or --resolution, not both.")
    if size is not None:
        return parse_size(size)
    return loaded.info.size if resolution is None else size_of_resolution(resolution)


def _purposes(given: str | None) -> tuple[bool, TargetName | None]:
    """Return whether a checkpoint for new sites is wanted, and the software whose files are.

    Raises:
        UsageError: A word that is neither, or several kinds of software.
    """
    words = choices(given, (_NEW_SITE, *get_args(TargetName)), "--for") if given is not None else ()
    targets = [cast(TargetName, word) for word in words if word != _NEW_SITE]
    if len(targets) > 1:
        raise UsageError(f"--for makes the files of one software, got {', '.join(targets)}; use --bundle for each.")
    return _NEW_SITE in words, targets[0] if targets else None


def _usual_name(loaded: Checkpoint, size: Size) -> Path:
    from reid_edge.osnet.architecture import format_size

    return Path(f"osnet_x{loaded.info.width:g}".replace(".", "_") + f"_{format_size(size)}")


def _obstacles(loaded: Checkpoint, input_format: InputFormat) -> dict[str, ReidEdgeError]:
    """Return the reasons why formats that cannot be made everywhere cannot be made here."""
    from reid_edge.export.native import why_no_plan
    from reid_edge.export.tensorrt import why_not_here

    found = {"native": why_no_plan(loaded.info.variant, input_format), "tensorrt": why_not_here()}
    return {name: reason for name, reason in found.items() if reason is not None}


def _exported(loaded: Checkpoint, options: ExportOptions, obstacles: Mapping[str, ReidEdgeError]) -> Path:
    """Export a bundle; print what is in it, why some formats are not, and the next command."""
    from reid_edge.export.exporter import export_bundle

    with progress_bars() as notify:
        exported = export_bundle(loaded, options, notify)
    print_table(f"{exported.path}", BUNDLE_HEADERS, bundle_rows(exported.manifest))
    path = shlex.quote(str(exported.path))
    if reason := obstacles.get("native"):
        console.print(f"Native engine: {reason}", soft_wrap=True)
    if reason := obstacles.get("tensorrt"):
        console.print(
            f"TensorRT: {reason}\n  Copy the bundle to the device and run there: "
            f"reid-edge build {path} --engine tensorrt",
            soft_wrap=True,
        )
    console.print(f"Next: reid-edge verify {path}", soft_wrap=True)
    return exported.path


def _checkpoint(checkpoint: Path | None, width: float | None, *, new_site: bool) -> Checkpoint:
    """Read the checkpoint that was named, or the shipped one of a width."""
    with extra("export", "exporting"):
        from reid_edge.osnet.shipped import find_checkpoint

    return find_checkpoint(checkpoint, width, say, new_site=new_site)


def _formats(asked: str | None, target: TargetName | None, obstacles: Mapping[str, ReidEdgeError]) -> tuple[str, ...]:
    """Return the formats to export: those asked for, else the target's, else all that can be made here.

    Raises:
        UsageError: A format that does not exist.
        ReidEdgeError: One was asked for, and cannot be made here.
    """
    from reid_edge.export.targets.table import TARGETS

    asked = asked or (TARGETS[target].format if target else None)
    chosen = choices(asked or ",".join(_FORMATS), _FORMATS, "--formats")
    for obstacle in (obstacles[name] for name in chosen if name in obstacles):
        if asked is not None:
            raise obstacle
    return tuple(name for name in chosen if name not in obstacles)


def build(
    bundle: BundleArgument,
    engine: Annotated[
        Literal["tensorrt"], typer.Option(help="Engine to build for; other engines need no build.")
    ] = "tensorrt",
    precision: Annotated[
        str | None, typer.Option(help="One or more of fp32,fp16,int8. Default: fp32 and fp16, if the bundle has them.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Largest batch, crops. Default: the bundle's.")
    ] = None,
    trusted_key: TrustedKeyOption = None,
    force: ForceOption = False,
) -> None:
    """Build TensorRT plans for this device from a bundle's ONNX files, check them, and add them to the bundle."""
    from reid_edge.bundle import open_bundle
    from reid_edge.export.tensorrt import build_into_bundle

    opened = open_bundle(bundle, trusted_keys=trusted_key or ())
    if precision is None:
        sources = [held.precision for held in opened.manifest.artifacts if held.engine == "onnxruntime"]
        precision = ",".join(one for one in ("fp32", "fp16") if one in sources)
    chosen = cast(tuple[Precision, ...], choices(precision, ("fp32", "fp16", "int8"), "--precision"))
    for one in chosen:
        opened.artifact("onnxruntime", one)
    held = [f"{engine}/{one}" for one in chosen if any(a.name == f"{engine}/{one}" for a in opened.manifest.artifacts)]
    if held and not force:
        raise OutputError(f"{bundle} holds {', '.join(held)} already; use --force to replace.")
    with progress_bars() as notify:
        built = build_into_bundle(opened, chosen, max_batch=max_batch, on_step=notify("building plans", len(chosen)))
    print_table(str(bundle), BUNDLE_HEADERS, bundle_rows(built.manifest))
    if built.built is not None:
        console.print(
            f"The bundle is signed and stays as it is; its plans, for this user on this machine, are in {built.built}",
            soft_wrap=True,
        )
