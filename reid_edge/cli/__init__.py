"""The ``reid-edge`` command: every heavy import is inside the command that needs it."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

import reid_edge
from reid_edge.cli.benchmark import benchmark
from reid_edge.cli.camera import run
from reid_edge.cli.evaluate import evaluate
from reid_edge.cli.explain import explain
from reid_edge.cli.gallery import gallery_app
from reid_edge.cli.report import report
from reid_edge.cli.train import train
from reid_edge.cli.tune import tune
from reid_edge.console import (
    BUNDLE_HEADERS,
    bundle_rows,
    console,
    error_console,
    extra,
    print_table,
    progress_bars,
)
from reid_edge.errors import ConfigError, InputError, OutputError, ReidEdgeError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="OSNet person re-identification on edge devices: export, verify, run, search, evaluate.",
)
app.command()(run)
app.command()(benchmark)
app.command()(report)
app.command()(tune)
app.command()(explain)
app.command()(train)
app.command()(evaluate)
app.add_typer(gallery_app, name="gallery")

EngineChoice = Literal["auto", "openvino", "onnxruntime", "tensorrt"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "int8", "tuned"]

BundleArgument = Annotated[Path, typer.Argument(help="Folder that 'reid-edge export' made.")]
EngineOption = Annotated[EngineChoice, typer.Option(help="What runs the model.")]
PrecisionOption = Annotated[PrecisionChoice, typer.Option(help="Which of the bundle's files.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; the engine's choice if not given.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
WidthOption = Annotated[float | None, typer.Option(help="Width multiplier β, in (0, 1.5].")]


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """OSNet person re-identification on edge devices."""
    if version:
        console.print(reid_edge.__version__)
        raise typer.Exit


@app.command()
def export(
    width: WidthOption = None,
    resolution: Annotated[float | None, typer.Option(help="Resolution multiplier γ of 256x128.")] = None,
    size: Annotated[str | None, typer.Option(help="Input HEIGHTxWIDTH; the checkpoint's own if not given.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A reid-edge .safetensors or torchreid .pth; else the one that ships.")
    ] = None,
    formats: Annotated[
        str | None, typer.Option(help="Of onnx,openvino,tensorrt; all that can be made here if not given.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of fp32,fp16,int8.")] = "fp32,fp16,int8",
    calibration: Annotated[str, typer.Option(help="Folder of person crops, or 'default': needs none.")] = "default",
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; ./osnet_x… if not given.")] = None,
    input_format: Annotated[
        Literal["pixels", "tensor"],
        typer.Option("--input", help="pixels: uint8 NHWC BGR, normalised inside; tensor: float32 NCHW RGB."),
    ] = "pixels",
    target_cpu: Annotated[
        Literal["any", "vnni"], typer.Option(help="INT8 for any CPU, or full range for x86 with VNNI only.")
    ] = "any",
    norm: Annotated[Literal["l2", "none"], typer.Option(help="What the runtime does to features.")] = "l2",
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Largest batch of every file.")] = 32,
    keep_rejected: Annotated[bool, typer.Option("--keep-rejected", help="Keep INT8 that its verdict rejects.")] = False,
    latency: Annotated[bool, typer.Option(help="Time every file at the end.")] = True,
    force: ForceOption = False,
) -> None:
    """Make a bundle from a checkpoint: ONNX, OpenVINO and TensorRT files, each checked against the checkpoint."""
    # Else two torch processes on few cores spin against each other: distilling then takes 15 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with extra("export", "exporting"):
        from reid_edge.export.exporter import ExportOptions, Format, export_bundle
        from reid_edge.export.tensorrt import why_not_here
        from reid_edge.osnet.config import format_size, parse_size, size_of_resolution
        from reid_edge.osnet.shipped import find_checkpoint

    if width is None and checkpoint is None:
        raise ConfigError("give --width β (0.25 ships with reid-edge), or --checkpoint FILE.")
    if size is not None and resolution is not None:
        raise ConfigError("give --size or --resolution, not both.")
    no_tensorrt = why_not_here()
    chosen = _choices(formats or "onnx,openvino,tensorrt", ("onnx", "openvino", "tensorrt"), "--formats")
    if formats is None and no_tensorrt:
        chosen = tuple(name for name in chosen if name != "tensorrt")
    elif no_tensorrt and "tensorrt" in chosen:
        raise no_tensorrt
    loaded = find_checkpoint(checkpoint, width)
    input_size = loaded.info.size
    if size is not None:
        input_size = parse_size(size)
    elif resolution is not None:
        input_size = size_of_resolution(resolution)
    name = f"osnet_x{loaded.info.width:g}".replace(".", "_") + f"_{format_size(input_size)}"
    options = ExportOptions(
        out=out or Path(name),
        size=input_size,
        formats=cast(tuple[Format, ...], chosen),
        precisions=_choices(precision, ("fp32", "fp16", "int8"), "--precision"),  # type: ignore[arg-type]
        calibration=None if calibration == "default" else Path(calibration),
        input_format=input_format,
        target_cpu=target_cpu,
        norm=norm,
        max_batch=max_batch,
        force=force,
        keep_rejected=keep_rejected,
        time_files=latency,
    )
    with progress_bars() as notify:
        bundle = export_bundle(loaded, options, notify)
    print_table(f"{bundle.path}", BUNDLE_HEADERS, bundle_rows(bundle.manifest))
    if no_tensorrt:
        console.print(
            f"TensorRT: {no_tensorrt}\n  Copy the bundle to the device and run there: "
            f"reid-edge build {shlex.quote(str(bundle.path))} --engine tensorrt",
            soft_wrap=True,
        )
    console.print(f"Next: reid-edge verify {shlex.quote(str(bundle.path))}", soft_wrap=True)


@app.command("import")
def import_checkpoint(
    source: Annotated[Path, typer.Argument(help="torchreid's .pth or .pth.tar.")],
    out: Annotated[Path | None, typer.Option(help="The .safetensors; SOURCE's name if not given.")] = None,
    width: WidthOption = None,
    size: Annotated[str, typer.Option(help="Input HEIGHTxWIDTH that it was trained at.")] = "256x128",
    dataset: Annotated[str, typer.Option(help="What it was trained on.")] = "unknown",
    force: ForceOption = False,
) -> None:
    """Turn a torchreid OSNet checkpoint into a reid-edge one; strict about every tensor."""
    with extra("export", "importing a checkpoint"):
        from reid_edge.osnet.checkpoint import save_checkpoint
        from reid_edge.osnet.config import parse_size
        from reid_edge.osnet.torchreid import import_torchreid

    checkpoint = import_torchreid(source, width=width, size=parse_size(size), dataset=dataset)
    target = out or Path(source.name.removesuffix(".tar").removesuffix(".pth") + ".safetensors")
    save_checkpoint(checkpoint, target, force=force)
    console.print(
        f"{target}: OSNet x{checkpoint.info.width:g} {checkpoint.info.variant}".rstrip()
        + f", sha256 of the weights {checkpoint.sha256}\n"
        f"Next: reid-edge export --checkpoint {shlex.quote(str(target))}",
        soft_wrap=True,
    )


@app.command()
def complexity(
    width: Annotated[list[float] | None, typer.Option(help="Width multiplier β; repeat for several.")] = None,
    resolution: Annotated[list[float] | None, typer.Option(help="Resolution γ; repeat for several.")] = None,
    size: Annotated[str | None, typer.Option(help="Input HEIGHTxWIDTH instead of a resolution.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Count an ONNX file instead; needs no torch.")] = None,
) -> None:
    """Print parameters and mult-adds: by default the paper's Table 6."""
    if onnx is not None:
        from reid_edge.benchmark.onnx_complexity import onnx_mult_adds

        print_table(str(onnx), ("file", "mult-adds"), [[onnx.name, f"{onnx_mult_adds(onnx) / 1e6:,.1f}M"]])
        return
    with extra("export", "counting a network (an ONNX file needs only the extra 'onnx')"):
        from reid_edge.osnet.complexity import complexity as count
        from reid_edge.osnet.config import OSNetConfig, format_size, parse_size, size_of_resolution

    if size is not None and resolution:
        raise ConfigError("give --size or --resolution, not both.")
    widths = width or [1.0, 0.75, 0.5, 0.25]
    sizes = [parse_size(size)] if size else [size_of_resolution(one) for one in resolution or [1.0, 0.75, 0.5, 0.25]]
    rows = []
    for beta in widths:
        counted = [count(OSNetConfig(width=beta, size=one)) for one in sizes]
        rows.append(
            [f"{beta:g}", f"{counted[0].parameters / 1e6:.1f}M", *(f"{c.mult_adds / 1e6:,.1f}M" for c in counted)]
        )
    print_table("mult-adds of one crop", ("β", "parameters", *map(format_size, sizes)), rows)


@app.command()
def extract(
    bundle: BundleArgument,
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images; each image is one crop.")],
    out: Annotated[Path, typer.Option(help="features.npy or features.parquet.")] = Path("features.npy"),
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    force: ForceOption = False,
) -> None:
    """Turn person crops into features."""
    from reid_edge.feature_file import check_feature_file, write_features
    from reid_edge.runtime import Extractor
    from reid_edge.runtime.images import extract_files, list_images

    check_feature_file(out, force=force)
    paths = list_images(inputs)
    extractor = Extractor(bundle, engine=engine, precision=precision, threads=threads)
    with progress_bars() as notify:
        features = extract_files(extractor, paths, notify(f"extracting with {extractor.description}", len(paths)))
    written = write_features(out, [str(path) for path in paths], features, extractor.bundle.manifest.model_hash)
    console.print(f"{features.shape[0]}×{features.shape[1]} float32 in {', '.join(map(str, written))}", soft_wrap=True)


@app.command()
def verify(
    bundle: BundleArgument,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Check a bundle's hashes, and its golden features on every engine of this machine ('auto': all of them)."""
    from reid_edge.bundle import open_bundle
    from reid_edge.runtime.engines import EngineOptions
    from reid_edge.runtime.golden import verify_bundle

    opened = open_bundle(bundle)
    results = verify_bundle(opened, engine, precision, EngineOptions(threads=threads))
    print_table(
        f"{bundle}: {len(opened.manifest.entries())} files as exported",
        ("engine", "result", "detail"),
        [[result.artifact.name, result.outcome, result.detail] for result in results],
    )
    if any(result.outcome == "wrong" for result in results):
        raise ReidEdgeError("a file computes other features here than where it was exported; do not use it here.")
    if not any(result.outcome == "right" for result in results):
        raise ReidEdgeError(
            "no file of this bundle could run on this machine; 'reid-edge doctor' says what to install."
        )


@app.command()
def inspect(
    bundle: BundleArgument, json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False
) -> None:
    """Print what a bundle holds."""
    from reid_edge.bundle import MANIFEST, open_bundle

    manifest = open_bundle(bundle).manifest
    if json:
        sys.stdout.write((bundle / MANIFEST).read_text(encoding="utf-8"))
        return
    calibration = manifest.calibration
    facts = {
        "model": f"OSNet x{manifest.model.width:g} {manifest.model.variant}".rstrip()
        + f", {manifest.model.parameters:,} parameters",
        "model hash": manifest.model_hash,
        "trained on": manifest.model.dataset,
        "input": f"{manifest.input.size[0]}x{manifest.input.size[1]} {manifest.input.dtype} {manifest.input.layout} "
        f"{manifest.input.color_order}, resized by {manifest.input.resize}, "
        f"normalised in the {manifest.input.normalised_in}",
        "features": f"{manifest.features.dim}, norm {manifest.features.norm}, compare by {manifest.features.distance}",
        "calibration": "none"
        if calibration is None
        else f"{calibration.calibration_crops} {calibration.source} crops ({calibration.note})",
        "exported": f"{manifest.created} by reid-edge {manifest.tools.get('reid-edge', '?')}",
        "timed on": manifest.latency[0].device if manifest.latency else "not timed",
    }
    print_table(str(bundle), ("", ""), [list(item) for item in facts.items()])
    print_table("files", BUNDLE_HEADERS, bundle_rows(manifest))


@app.command()
def doctor() -> None:
    """Say which engines work here, and what to install next."""
    from reid_edge.runtime.doctor import examine

    rows = [[finding.subject, finding.found, finding.advice] for finding in examine()]
    print_table(f"reid-edge {reid_edge.__version__}", ("", "found", "advice"), rows)


@app.command()
def build(
    bundle: BundleArgument,
    engine: Annotated[
        Literal["tensorrt"], typer.Option(help="Which engine's files depend on the device.")
    ] = "tensorrt",
    precision: Annotated[
        str | None, typer.Option(help="Of fp32,fp16,int8; fp32 and fp16, as the bundle has them, if not given.")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Largest batch; the bundle's if not given.")] = None,
    force: ForceOption = False,
) -> None:
    """Build TensorRT plans for this device from a bundle's ONNX files, check them, and add them to the bundle."""
    from reid_edge.bundle import Precision, open_bundle
    from reid_edge.export.tensorrt import build_into_bundle

    opened = open_bundle(bundle)
    if precision is None:
        sources = [held.precision for held in opened.manifest.artifacts if held.engine == "onnxruntime"]
        precision = ",".join(one for one in ("fp32", "fp16") if one in sources)
    chosen = cast(tuple[Precision, ...], _choices(precision, ("fp32", "fp16", "int8"), "--precision"))
    for one in chosen:
        opened.artifact("onnxruntime", one)
    held = [f"{engine}/{one}" for one in chosen if any(a.name == f"{engine}/{one}" for a in opened.manifest.artifacts)]
    if held and not force:
        raise OutputError(f"{bundle} holds {', '.join(held)} already; use --force to replace.")
    with progress_bars() as notify:
        built = build_into_bundle(opened, chosen, max_batch=max_batch, on_step=notify("building plans", len(chosen)))
    print_table(str(bundle), BUNDLE_HEADERS, bundle_rows(built.manifest))


def _choices(text: str, allowed: tuple[str, ...], option: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if not chosen or set(chosen) - set(allowed):
        raise InputError(f"{option} takes one or more of {','.join(allowed)}, got '{text}'.")
    return chosen


def main() -> None:
    """Entry point: an error that reid-edge raises on purpose becomes one message and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ≥ and × is no reason to fail
    asked_to_stop: list[int] = []

    def stop(number: int, _frame: object) -> None:
        asked_to_stop.append(number)
        sys.exit(143)  # so that what was half written is removed

    signal.signal(signal.SIGTERM, stop)
    try:
        app()
    except ReidEdgeError as error:
        if asked_to_stop:  # in the middle of an import, which made an ImportError of it
            sys.exit(143)
        error_console.print(type(error).__name__, style="bold red", end=": ")
        error_console.print(str(error), soft_wrap=True)
        sys.exit(1)
