"""The parts that all figures are made of, as Plotly takes them: traces of variants, and logarithmic axes.

Colours are left to the page, which has a light and a dark set: a trace's ``meta.tone`` is an index into it, and its
``meta.variant`` names the variant that it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from reid_edge.benchmark.report.data import Entry, ReportData, threads_text
from reid_edge.benchmark.report.tables import NOISY, number, percent
from reid_edge.manifest import Precision

Figure = dict[str, Any]

SYMBOLS: dict[Precision, str] = {"fp32": "circle", "fp16": "square", "int8": "diamond", "tuned": "star"}
DASHES = ("solid", "dash", "dot", "dashdot")
#: An axis spans at least this factor, so that a single point has a scale.
LEAST_SPAN = 3.0
_FINE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)


def variant_trace(
    report: ReportData,
    entries: Sequence[Entry],
    x: Callable[[Entry], float],
    y: Callable[[Entry], float],
    *,
    size: int = 10,
    dataset: str | None = None,
    **fields: Any,
) -> Figure:
    """Return a trace with the points of one variant; noisy ones are hollow.

    Args:
        report: Gives the variant its colour.
        entries: Runs of one variant.
        x: Position of a run on the horizontal axis.
        y: Position of a run on the vertical axis.
        size: Size of the symbols, pixels.
        dataset: Its mAP is shown when a point is hovered over.
        fields: Other properties of the trace.
    """
    symbols = [SYMBOLS[entry.run.precision] + ("-open" if entry.noisy else "") for entry in entries]
    return {
        "mode": "markers",
        "x": [x(entry) for entry in entries],
        "y": [y(entry) for entry in entries],
        "marker": {"symbol": symbols, "size": size},
        "hovertext": [hover(entry, dataset) for entry in entries],
        **variant_fields(report, entries[0].variant),
        **fields,
    }


def variant_traces(
    report: ReportData,
    entries: Sequence[Entry],
    x: Callable[[Entry], float],
    y: Callable[[Entry], float],
    **fields: Any,
) -> list[Figure]:
    """Return a trace for each variant; see :func:`variant_trace`."""
    by_variant = [[entry for entry in entries if entry.variant == variant] for variant in report.variants]
    return [variant_trace(report, mine, x, y, **fields) for mine in by_variant if mine]


def variant_fields(report: ReportData, variant: str) -> Figure:
    """Return the properties by which the page knows a trace's variant."""
    meta = {"tone": report.variants.index(variant), "variant": variant}
    return {"type": "scatter", "name": variant, "hoverinfo": "text", "meta": meta}


def neutral(**fields: Any) -> Figure:
    """Return a trace that belongs to no variant."""
    return {"type": "scatter", "hoverinfo": "skip", "meta": {"tone": "ink"}, **fields}


def p50(entry: Entry) -> float:
    """Return the median, milliseconds a query."""
    return entry.run.summary.p50


def interval(entries: Sequence[Entry]) -> Figure:
    """Return error bars of the median's 95 % interval."""
    summaries = [entry.run.summary for entry in entries]
    return {
        "type": "data",
        "symmetric": False,
        "array": [summary.ci_high - summary.p50 for summary in summaries],
        "arrayminus": [summary.p50 - summary.ci_low for summary in summaries],
        "thickness": 1.5,
        "width": 4,
    }


def hover(entry: Entry, dataset: str | None = None) -> str:
    """Return the text shown over a point; names come from files, so they are escaped."""
    run, summary = entry.run, entry.run.summary
    lines = [
        f"<b>{escape(entry.model.name)}</b> {entry.variant}",
        escape(run.execution),
        f"{entry.query}, {threads_text(run.threads)}",
        f"median {number(summary.p50)} ms ({number(summary.ci_low)} to {number(summary.ci_high)})",
        f"p90 {number(summary.p90)}, p95 {number(summary.p95)}, p99 {number(summary.p99)} ms",
        f"{number(run.gflops)} GFLOP/s, {percent(run.fraction_of_peak)} of peak",
    ]
    if dataset is not None and (accuracy := entry.accuracy(dataset)):
        lines.append(f"mAP {accuracy.mean_ap:.2f}" + ("" if accuracy.measured else ", the checkpoint's"))
    lines += [f"{NOISY} noisy: {escape(reason)}" for reason in summary.reasons]
    return "<br>".join(filter(None, lines))


def figure(traces: Sequence[Figure], layout: Figure) -> Figure:
    """Return a figure whose properties Plotly has checked."""
    import plotly.graph_objects as go

    made: Figure = go.Figure(list(traces), {"showlegend": False, "hovermode": "closest", **layout}).to_plotly_json()
    made["layout"].pop("template", None)
    return made


def log_axis(values: Iterable[float], title: str, *, pad: float = 1.35) -> dict[str, Any]:
    """Return a logarithmic Plotly axis that shows all values with room around them, and a handful of ticks.

    Args:
        values: Positive numbers; at least one.
        title: Quantity and unit.
        pad: Factor of room at either end.
    """
    known = list(values)
    low, high = min(known) / pad, max(known) * pad
    if high / low < LEAST_SPAN:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(LEAST_SPAN), middle * math.sqrt(LEAST_SPAN)
    ticks = log_ticks(low, high)
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
        "title": {"text": title},
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two positive ones, coarser the more decades there are."""
    span = math.log10(high / low)
    steps = (1.0,) if span > 3.2 else (1.0, 3.0) if span > 2.2 else (1.0, 2.0, 5.0) if span > 0.75 else _FINE
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = (float(f"{step}e{decade}") for decade in decades for step in steps)
    return [tick for tick in candidates if low <= tick <= high]
