"""Prints a benchmark's result as tables."""

from __future__ import annotations

from collections.abc import Sequence

import rich.box
from rich.measure import Measurement
from rich.table import Table

from reid_edge.benchmark.result import BenchmarkResult, ModelEntry, Run
from reid_edge.console import console
from reid_edge.wording import counted

TIME_HEADERS = ("p50 ms", "95 % of p50", "p90", "p95", "p99", "crops/s", "GFLOP/s", "of peak")
VARIANT_HEADERS = ("size", "load", "first query", "peak RSS", "energy", "mAP", "R1")


def print_result(result: BenchmarkResult) -> None:
    """Print the device, each model's times and sizes of its variants, what was not run, and notes."""
    device = result.device
    facts = (device.name, device.os, device.container, device.governor, device.isa_limit)
    console.print(" · ".join(fact for fact in facts if fact), soft_wrap=True)
    for index, model in enumerate(result.models):
        if runs := [run for run in result.runs if run.model == index]:
            console.print()
            console.print(_title(model), soft_wrap=True)
            _print(_times(runs))
            _print(_variants(model, runs))
    for failure in result.not_run:
        name = result.models[failure.model].name
        console.print(f"not run: {name} {failure.artifact}: {failure.reason}", soft_wrap=True)
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _title(model: ModelEntry) -> str:
    size = f"{model.size[0]}x{model.size[1]}"
    weights = "" if model.trained else ", random weights"
    return (
        f"{model.name}: OSNet x{model.width:g} {size}, {model.parameters / 1e6:.2f}M parameters, "
        f"{model.mult_adds / 1e6:.1f}M mult-adds{weights}"
    )


def _times(runs: Sequence[Run]) -> Table:
    """Return a table with the variants side by side in each query, since these are compared."""
    table = _table(("query", "variant"), TIME_HEADERS)
    table.add_column("", no_wrap=True)
    for query in dict.fromkeys((run.scenario, run.crops) for run in runs):
        text = f"{query[0]}, {counted(query[1], 'crop')}"
        for run in runs:
            if (run.scenario, run.crops) == query:
                table.add_row(text, *_time_cells(run))
                text = ""
        table.add_section()
    return table


def _time_cells(run: Run) -> list[str]:
    summary = run.summary
    return [
        _variant(run),
        _ms(summary.p50),
        f"{_ms(summary.ci_low)}–{_ms(summary.ci_high)}",
        *(_ms(value) for value in (summary.p90, summary.p95, summary.p99)),
        f"{run.crops_per_second:.0f}",
        f"{run.gflops:.1f}",
        "–" if run.fraction_of_peak is None else f"{100 * run.fraction_of_peak:.0f} %",
        "" if summary.verdict == "steady" else "noisy",
    ]


def _variants(model: ModelEntry, runs: Sequence[Run]) -> Table:
    table = _table(("variant",), VARIANT_HEADERS)
    table.add_column("by", no_wrap=True)
    for variant in dict.fromkeys(_variant(run) for run in runs):
        table.add_row(variant, *_variant_cells(model, [run for run in runs if _variant(run) == variant]))
    return table


def _variant_cells(model: ModelEntry, runs: Sequence[Run]) -> list[str]:
    first = min(runs, key=lambda run: run.crops)
    peak = max((run.peak_rss_mb for run in runs if run.peak_rss_mb is not None), default=None)
    ranking = [model.accuracy.get(f"market1501/{first.engine}/{first.precision}/{figure}") for figure in ("mAP", "R1")]
    return [
        f"{first.size_bytes / 1e6:.2f} MB",
        f"{first.load_ms:.0f} ms",
        f"{first.first_ms:.0f} ms",
        "–" if peak is None else f"{peak:.0f} MiB",
        "–" if first.energy is None else f"{1000 * first.energy.joules_per_crop:.1f} mJ/crop",
        *("–" if value is None else f"{value:.2f}" for value in ranking),
        ", ".join(part for part in (first.engine_description, first.execution) if part),
    ]


def _variant(run: Run) -> str:
    threads = "" if run.threads is None else f", {counted(run.threads, 'thread')}"
    return f"{run.engine}/{run.precision}{threads}"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _table(names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=rich.box.SIMPLE)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _print(table: Table) -> None:
    # As wide as its content, whatever the terminal's width: figures are to be copied, never shortened.
    table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=False)
