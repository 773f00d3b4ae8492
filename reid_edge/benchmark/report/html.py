"""The report as one page with figures, tables, style and Plotly itself; it needs no network."""

from __future__ import annotations

import datetime
import itertools
import json
from pathlib import Path
from typing import Any

from reid_edge.benchmark.report import tables
from reid_edge.benchmark.report.charts import DASHES, SYMBOLS
from reid_edge.benchmark.report.data import ReportData, models_of, threads_text
from reid_edge.benchmark.report.figures import all_figures, roofs
from reid_edge.console import extra
from reid_edge.files import write_whole
from reid_edge.pages import page_asset, page_template
from reid_edge.wording import counted

#: Plotly's line patterns in SVG.
SVG_DASHES = {"solid": "", "dash": "8 5", "dot": "2 4", "dashdot": "8 4 2 4"}


def write_page(report: ReportData, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        MissingExtraError: Plotly or Jinja is not installed.
        OutputError: It cannot be written.
    """
    with extra("report", "making a page of plots (Markdown needs nothing)"):
        text = page(report)
    write_whole(path, text.encode())


def page(report: ReportData) -> str:
    """Return the page as text, some 5 MB, nearly all of it Plotly's."""
    from plotly.offline import get_plotlyjs

    figures = all_figures(report)
    return page_template(__package__, run_row=tables.run_row).render(
        report=report,
        tables=tables,
        models_of=models_of,
        counted=counted,
        figures=figures,
        legend=[(variant, tone, SYMBOLS[variant.split("/")[1]]) for tone, variant in enumerate(report.variants)],  # type: ignore[index]
        dashes=_dashes(report),
        layers=any(tables.layer_rows(device) for device in report.devices),
        grids=any(tables.grid_of(device, query) for device in report.devices for query in report.queries),
        roofs=lambda device: [(text, SVG_DASHES[dash]) for text, dash in roofs(device)],
        noted=[(device.label, note) for device in report.devices for result in device.results for note in result.notes],
        noisy=sum(entry.noisy for entry in report.entries),
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=page_asset(__package__, "page.css"),
        script=page_asset(__package__, "page.js"),
        plotly=get_plotlyjs(),
        data=_for_script(figures),
    )


def _dashes(report: ReportData) -> list[tuple[str, str]]:
    """Return a legend of the lines' patterns: text, and the pattern as SVG takes it."""
    counts = sorted({entry.run.threads or 0 for entry in report.entries})
    patterns = itertools.cycle(SVG_DASHES[dash] for dash in DASHES)
    return [(threads_text(count or None), pattern) for count, pattern in zip(counts, patterns, strict=False)]


def _for_script(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
