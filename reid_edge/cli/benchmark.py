"""``reid-edge benchmark``: how fast this device runs bundles."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from reid_edge.cli.shared_options import (
    DeviceOption,
    ForceOption,
    SkipBadOption,
    TrustedKeyOption,
    choices,
    comma_separated,
)
from reid_edge.console import extra, progress_bars, say
from reid_edge.errors import UsageError
from reid_edge.files import check_output
from reid_edge.progress import Notify

if TYPE_CHECKING:
    from reid_edge.benchmark.options import BenchmarkOptions

#: oneDNN's names of instruction sets, from its developer guide's "CPU Dispatcher Control".
ISA_NAMES = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
    "AVX512_CORE_AMX",
    "AVX512_CORE_AMX_FP16",
)


def benchmark(
    bundles: Annotated[list[Path] | None, typer.Argument(help="Folders that 'reid-edge export' made.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Engines to time: native,openvino,onnxruntime,tensorrt. Default: all that a bundle has files for."
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Precisions to time: fp32,fp16,int8,tuned. Default: all.")
    ] = None,
    threads: Annotated[
        str, typer.Option(help="Numbers of CPU threads to time, e.g. auto,1,2. auto: the engine decides.")
    ] = "auto",
    device: DeviceOption = "CPU",
    crops: Annotated[str, typer.Option(help="Crops per query, in the scenarios multi-stream and end-to-end.")] = "1,8",
    scenario: Annotated[
        str, typer.Option(help="Scenarios to time (docs/benchmark.md).")
    ] = "single-stream,multi-stream,offline,end-to-end",
    rounds: Annotated[
        int, typer.Option(min=1, help="Number of rounds; each round times every variant once per query.")
    ] = 6,
    seconds: Annotated[float, typer.Option(help="Longest time for one variant and query in a round, seconds.")] = 1.0,
    budget_seconds: Annotated[
        float | None,
        typer.Option(
            help="Shorten rounds to take about this time, seconds. Default: 150, and 30 for each further bundle."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the result, with every sample. Default: print only.")
    ] = None,
    force: ForceOption = False,
    root: Annotated[Path | None, typer.Option(help="Market-1501 folder: also measure mAP and R1 of each file.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a subset: do not check the number of images.")
    ] = False,
    skip_bad: SkipBadOption = False,
    roofline: Annotated[bool, typer.Option(help="Also measure this device's peak speed and memory bandwidth.")] = True,
    isa: Annotated[
        str | None,
        typer.Option(help="Limit oneDNN (OpenVINO) to older CPU instructions, e.g. AVX2; sets ONEDNN_MAX_CPU_ISA."),
    ] = None,
    grid: Annotated[
        Path | None, typer.Option(help="Export the 16 networks of the paper's Table 6 to this folder, and time them.")
    ] = None,
    trusted_key: TrustedKeyOption = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="With --grid: weights to use besides the shipped ones. May be repeated.")
    ] = None,
) -> None:
    """Time bundles on this device. Each file runs in its own process, in interleaved rounds."""
    from reid_edge.benchmark.options import BenchmarkOptions
    from reid_edge.benchmark.result import SCENARIOS, Scenario
    from reid_edge.benchmark.result_file import write_result
    from reid_edge.benchmark.suite import benchmark_bundles
    from reid_edge.cli.benchmark_tables import print_result
    from reid_edge.manifest import ENGINES, PRECISIONS, EngineName, Precision

    options = BenchmarkOptions(
        engines=cast("tuple[EngineName, ...] | None", _names(engine, ENGINES, "--engine")),
        precisions=cast("tuple[Precision, ...] | None", _names(precision, PRECISIONS, "--precision")),
        threads=tuple(None if one == "auto" else _number(one, "--threads") for one in comma_separated(threads)),
        scenarios=cast("tuple[Scenario, ...]", _names(scenario, SCENARIOS, "--scenario")),
        crops=tuple(_number(one, "--crops") for one in comma_separated(crops)),
        rounds=rounds,
        seconds=seconds,
        budget_seconds=budget_seconds,
        roofline=roofline,
        root=root,
        partial=partial,
        skip_bad=skip_bad,
        device=device,
        trusted_keys=tuple(trusted_key or ()),
        command=shlex.join(["reid-edge", *sys.argv[1:]]),
    )
    if trusted_key and grid is not None:
        raise UsageError("--grid makes bundles that nobody has signed: leave out --trusted-key.")
    if checkpoint and grid is None:
        raise UsageError("--checkpoint gives weights for the cells of --grid DIR; a bundle has its own.")
    if out is not None:
        check_output(out, force=force)
    if isa is not None:
        _limit_isa(isa)
    with progress_bars() as notify:
        paths = bundles or []
        made = [] if grid is None else _make_grid(grid, checkpoint or [], paths, options, notify)
        result = benchmark_bundles([*paths, *made], options, notify)
    print_result(result)
    if out is not None:
        write_result(out, result)


def _make_grid(
    folder: Path,
    checkpoints: list[Path],
    bundles: list[Path],
    options: BenchmarkOptions,
    notify: Notify,
) -> list[Path]:
    """Make the grid, after checking the whole request."""
    from reid_edge.benchmark.suite import check_request

    with extra("export", "making the grid of Table 6"):
        from reid_edge.export.exporter import Format
        from reid_edge.export.table6 import make_cells, plan_table
        from reid_edge.osnet.shipped import find_checkpoint, usual_checkpoints

    formats: dict[str, Format] = {"native": "native", "onnxruntime": "onnx", "openvino": "openvino"}
    given = [find_checkpoint(path, None, say) for path in checkpoints]
    cells = plan_table(
        folder,
        [*given, *usual_checkpoints()],
        precisions=options.precisions or ("fp32",),
        formats=tuple(one for engine, one in formats.items() if options.engines is None or engine in options.engines),
    )
    check_request(bundles, {cell.path: cell.artifacts for cell in cells}, options, notify)
    return make_cells(cells, notify)


def _limit_isa(name: str) -> None:
    """Limit oneDNN in this process and all workers; it reads the variable when it is first used."""
    if name.upper() not in ISA_NAMES:
        raise UsageError(f"--isa takes one of {', '.join(ISA_NAMES)}, got '{name}'.")
    os.environ["ONEDNN_MAX_CPU_ISA"] = name.upper()


def _names(text: str | None, allowed: tuple[str, ...], option: str) -> tuple[str, ...] | None:
    return None if text is None else choices(text, allowed, option)


def _number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{option} takes whole numbers with commas between, e.g. 1,2; got '{text}'.") from None
