"""The same results as Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reid_edge.benchmark.report.data import Entry, Query, Site, Survey, models_of
from reid_edge.benchmark.report.tables import (
    NOISY,
    NOT_KNOWN,
    GridCell,
    grid_of,
    mean_ap,
    median,
    number,
    percent,
    threads_cell,
)


def markdown_report(survey: Survey) -> str:
    """A heading and a table for each device, with the grid as the paper's Table 6 where there is one.

    Times are medians in milliseconds a query.
    """
    return "\n\n".join(_site(site) for site in survey.sites) + "\n"


def _site(site: Site) -> str:
    parts = [f"### {_text(site.label)}", _about(site)]
    parts += [*_grids(site)] or [_table(*_runs(site))]
    notes = [f"* {_text(note)}" for result in site.results for note in result.notes]
    notes += [f"* Not run: {_text(one)}" for one in _not_run(site)]
    if any(entry.noisy for entry in site.entries):
        notes.append(f"* {NOISY}: noisy, the machine changed too much for this median to be believed.")
    if any(mean_ap(entry).startswith("(") for entry in site.entries):
        notes.append("* (mAP): the checkpoint's own, not measured on this form.")
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _about(site: Site) -> str:
    device = site.device
    libraries = ", ".join(f"{name} {version}" for name, version in device.libraries.items())
    facts = [device.cpu, f"{device.cpus} CPUs", device.container, device.os, libraries]
    about = [fact for fact in facts if fact and fact not in site.label]
    commands = "\n".join(result.command for result in site.results)
    return f"{_text(', '.join(about))}; medians, ms a query:\n\n{_fenced(commands)}"


def _runs(site: Site) -> tuple[Sequence[str], list[list[str]]]:
    """A row for each form and number of threads, a column for each query."""
    queries = sorted({entry.query for entry in site.entries})
    headers = ["model", "form", "threads", *map(str, queries), "of peak", "mAP", "file MB", "RSS MiB"]
    rows = []
    for name, entries in models_of(site.entries).items():
        by_form: dict[tuple[str, str, int], list[Entry]] = {}
        for entry in entries:
            by_form.setdefault((entry.form, entry.run.execution, entry.run.threads or 0), []).append(entry)
        rows += [_row(name, group, queries) for group in by_form.values()]
    return headers, rows


def _row(name: str, entries: Sequence[Entry], queries: Sequence[Query]) -> list[str]:
    run = entries[0].run
    by_query = {entry.query: entry for entry in entries}
    fractions = [entry.run.fraction_of_peak for entry in entries if entry.run.fraction_of_peak is not None]
    resident = [entry.run.peak_rss_mb for entry in entries if entry.run.peak_rss_mb is not None]
    return [
        name,
        entries[0].form + (f" ({run.execution})" if run.execution else ""),
        threads_cell(run.threads),
        *(median(by_query[query]) if query in by_query else NOT_KNOWN for query in queries),
        percent(max(fractions, default=None)),
        mean_ap(entries[0]),
        f"{run.size_bytes / 1e6:.2f}",
        number(max(resident, default=None)),
    ]


def _grids(site: Site) -> list[str]:
    queries = sorted({entry.query for entry in site.entries})
    found = [(query, grid) for query in queries if (grid := grid_of(site, query))]
    return [
        f"{query}: mult-adds, median of the fastest form, mAP where measured\n\n"
        + _table(
            ("β", "parameters", *grid.columns),
            [[width, parameters, *map(_cell, cells)] for width, parameters, cells in grid.rows],
        )
        for query, grid in found
    ]


def _cell(cell: GridCell | None) -> str:
    return NOT_KNOWN if cell is None else " · ".join((cell.mult_adds, cell.times[0], *cell.accuracies))


def _not_run(site: Site) -> list[str]:
    return [
        f"{result.models[one.model].name}, {one.artifact}: {one.reason}"
        for result in site.results
        for one in result.not_run
    ]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---" for _ in headers], *rows]
    return "\n".join("| " + " | ".join(map(_text, line)) + " |" for line in lines)


def _fenced(text: str) -> str:
    """As a block of code, in a fence longer than any that the text holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _text(text: str) -> str:
    """On one line, and without what Markdown would take for a column, a link, code, emphasis or HTML.

    Underscores stay: within a word, as names have them, they mean nothing.
    """
    return re.sub(r"[\\`*\[\]~|]", r"\\\g<0>", " ".join(text.split())).replace("<", "&lt;")
