"""The report as Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reid_edge.benchmark.report.data import DeviceResults, Entry, Query, ReportData, models_of
from reid_edge.benchmark.report.tables import (
    LAYER_HEADERS,
    NOISY,
    NOT_KNOWN,
    GridCell,
    grid_of,
    layer_rows,
    mean_ap,
    median,
    number,
    percent,
    threads_cell,
)


def markdown_report(report: ReportData) -> str:
    """Return a heading and a table for each device, and the paper's Table 6 where a grid was timed.

    Times are medians in milliseconds a query.
    """
    return "\n\n".join(_device(device) for device in report.devices) + "\n"


def _device(device: DeviceResults) -> str:
    parts = [f"### {_text(device.label)}", _about(device)]
    parts += [*_grids(device)] or [_table(*_runs(device))]
    if layers := layer_rows(device):
        parts += ["Where the native engine's time goes:", _table(LAYER_HEADERS, layers)]
    notes = [f"* {_text(note)}" for result in device.results for note in result.notes]
    notes += [f"* Not run: {_text(one)}" for one in _not_run(device)]
    if any(entry.noisy for entry in device.entries):
        notes.append(f"* {NOISY}: noisy; the machine changed too much for this median to be reliable.")
    if any(mean_ap(entry).startswith("(") for entry in device.entries):
        notes.append("* (mAP): the checkpoint's own, not measured on this variant.")
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _about(device: DeviceResults) -> str:
    system = device.system
    libraries = ", ".join(f"{name} {version}" for name, version in system.libraries.items())
    facts = [system.cpu, f"{system.cpus} CPUs", system.container, system.os, libraries]
    about = [fact for fact in facts if fact and fact not in device.label]
    commands = "\n".join(result.command for result in device.results)
    return f"{_text(', '.join(about))}; medians, ms a query:\n\n{_fenced(commands)}"


def _runs(device: DeviceResults) -> tuple[Sequence[str], list[list[str]]]:
    """Return headers and rows: a row for each variant and number of threads, a column for each query."""
    queries = sorted({entry.query for entry in device.entries})
    headers = ["model", "variant", "threads", *map(str, queries), "of peak", "mAP", "file MB", "RSS MiB"]
    rows = []
    for name, entries in models_of(device.entries).items():
        by_variant: dict[tuple[str, str, int], list[Entry]] = {}
        for entry in entries:
            by_variant.setdefault((entry.variant, entry.run.execution, entry.run.threads or 0), []).append(entry)
        rows += [_row(name, group, queries) for group in by_variant.values()]
    return headers, rows


def _row(name: str, entries: Sequence[Entry], queries: Sequence[Query]) -> list[str]:
    run = entries[0].run
    by_query = {entry.query: entry for entry in entries}
    fractions = [entry.run.fraction_of_peak for entry in entries if entry.run.fraction_of_peak is not None]
    resident = [entry.run.peak_rss_mb for entry in entries if entry.run.peak_rss_mb is not None]
    return [
        name,
        entries[0].variant + (f" ({run.execution})" if run.execution else ""),
        threads_cell(run.threads),
        *(median(by_query[query]) if query in by_query else NOT_KNOWN for query in queries),
        percent(max(fractions, default=None)),
        mean_ap(entries[0]),
        f"{run.size_bytes / 1e6:.2f}",
        number(max(resident, default=None)),
    ]


def _grids(device: DeviceResults) -> list[str]:
    queries = sorted({entry.query for entry in device.entries})
    found = [(query, grid) for query in queries if (grid := grid_of(device, query))]
    return [
        f"{query}: mult-adds, median of the fastest variant, mAP where measured\n\n"
        + _table(
            ("β", "parameters", *grid.columns),
            [[width, parameters, *map(_cell, cells)] for width, parameters, cells in grid.rows],
        )
        for query, grid in found
    ]


def _cell(cell: GridCell | None) -> str:
    return NOT_KNOWN if cell is None else " · ".join((cell.mult_adds, cell.times[0], *cell.accuracies))


def _not_run(device: DeviceResults) -> list[str]:
    return [
        f"{result.models[one.model].name}, {one.artifact}: {one.reason}"
        for result in device.results
        for one in result.not_run
    ]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---" for _ in headers], *rows]
    return "\n".join("| " + " | ".join(map(_text, line)) + " |" for line in lines)


def _fenced(text: str) -> str:
    """Return text as a block of code, in a fence longer than any that the text holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _text(text: str) -> str:
    """Return text on one line, with escapes for columns, links, code, emphasis and HTML.

    Underscores stay: within a word they mean nothing in Markdown.
    """
    return re.sub(r"[\\`*\[\]~|]", r"\\\g<0>", " ".join(text.split())).replace("<", "&lt;")
