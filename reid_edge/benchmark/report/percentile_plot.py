"""Percentiles: a row for each run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from reid_edge.benchmark.report.axes import log_axis
from reid_edge.benchmark.report.survey import Entry, Survey, threads_text
from reid_edge.benchmark.report.tables import median, number
from reid_edge.benchmark.report.traces import Figure, figure, form_trace, interval, of_form, p50

ROW_PIXELS = 44
#: The axis and its title.
FOOT_PIXELS = 70
_TICKS = (("min", 8), ("p90", 9), ("p95", 13), ("p99", 17))


def percentiles_figure(survey: Survey, entries: Sequence[Entry]) -> Figure:
    """Shortest time to p99 as a line with ticks at p90, p95 and p99, and the median with its interval; fastest first.

    Labels stand above their lines, so that a phone has room for both.
    """
    rows = sorted(entries, key=p50)
    traces = [
        trace for row, entry in enumerate(rows) for trace in (_line(survey, entry, row), _median(survey, entry, row))
    ]
    ends = [end for entry in rows for end in (entry.run.summary.min, entry.run.summary.p99, entry.run.summary.ci_high)]
    layout = {
        "xaxis": log_axis(ends, "ms a query", pad=1.12),
        "yaxis": {"range": [len(rows) - 0.45, -0.75], "visible": False, "fixedrange": True},
        "annotations": [_label(entry, row) for row, entry in enumerate(rows)],
        "height": ROW_PIXELS * len(rows) + FOOT_PIXELS,
        "margin": {"l": 12, "r": 12, "t": 8, "b": 52},
    }
    return figure(traces, layout)


def _line(survey: Survey, entry: Entry, row: int) -> Figure:
    times = [getattr(entry.run.summary, name) for name, _ in _TICKS]
    return {
        "mode": "lines+markers",
        "x": times,
        "y": [row] * len(times),
        "line": {"width": 2},
        "marker": {"symbol": "line-ns-open", "size": [size for _, size in _TICKS], "line": {"width": 2}},
        "hovertext": [f"{name} {number(time)} ms" for (name, _), time in zip(_TICKS, times, strict=True)],
        **of_form(survey, entry.form),
    }


def _median(survey: Survey, entry: Entry, row: int) -> Figure:
    return form_trace(survey, [entry], p50, lambda _: row, size=11, error_x=interval([entry]))


def _label(entry: Entry, row: int) -> Figure:
    threads = "auto threads" if entry.run.threads is None else threads_text(entry.run.threads)
    return {
        "name": entry.form,
        "text": escape(" · ".join((entry.form, entry.run.execution or threads, f"{median(entry)} ms"))),
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": row,
        "yshift": 19,
        "showarrow": False,
        "align": "left",
    }
