"""What all figures share: traces of model forms, in Plotly's terms.

Colours are left to the page, which has a light and a dark set: a trace's ``meta.tone`` is an index into it, and its
``meta.form`` says which model form it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from reid_edge.benchmark.report.survey import Entry, Survey, threads_text
from reid_edge.benchmark.report.tables import NOISY, number, percent
from reid_edge.bundle import Precision

Figure = dict[str, Any]

SYMBOLS: dict[Precision, str] = {"fp32": "circle", "fp16": "square", "int8": "diamond", "tuned": "star"}
DASHES = ("solid", "dash", "dot", "dashdot")


def form_trace(
    survey: Survey,
    entries: Sequence[Entry],
    x: Callable[[Entry], float],
    y: Callable[[Entry], float],
    *,
    size: int = 10,
    dataset: str | None = None,
    **fields: Any,
) -> Figure:
    """Points of one model form; noisy ones are hollow.

    Args:
        survey: Gives the form its colour.
        entries: Of one form.
        x: Where each lies.
        y: Likewise.
        size: Of the symbols, pixels.
        dataset: Whose mAP is told with a point.
        fields: Other properties of the trace.
    """
    symbols = [SYMBOLS[entry.run.precision] + ("-open" if entry.noisy else "") for entry in entries]
    return {
        "mode": "markers",
        "x": [x(entry) for entry in entries],
        "y": [y(entry) for entry in entries],
        "marker": {"symbol": symbols, "size": size},
        "hovertext": [hover(entry, dataset) for entry in entries],
        **of_form(survey, entries[0].form),
        **fields,
    }


def form_traces(
    survey: Survey,
    entries: Sequence[Entry],
    x: Callable[[Entry], float],
    y: Callable[[Entry], float],
    **fields: Any,
) -> list[Figure]:
    """Points of all forms, a trace each; see :func:`form_trace`."""
    by_form = [[entry for entry in entries if entry.form == form] for form in survey.forms]
    return [form_trace(survey, mine, x, y, **fields) for mine in by_form if mine]


def of_form(survey: Survey, form: str) -> Figure:
    """What tells the page whose trace it is."""
    meta = {"tone": survey.forms.index(form), "form": form}
    return {"type": "scatter", "name": form, "hoverinfo": "text", "meta": meta}


def neutral(**fields: Any) -> Figure:
    """A trace that belongs to no form."""
    return {"type": "scatter", "hoverinfo": "skip", "meta": {"tone": "ink"}, **fields}


def p50(entry: Entry) -> float:
    """Milliseconds a query."""
    return entry.run.summary.p50


def interval(entries: Sequence[Entry]) -> Figure:
    """Error bars: the median's 95 % interval."""
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
    """What is told of a point; names come from files, so none may act as markup."""
    run, summary = entry.run, entry.run.summary
    lines = [
        f"<b>{escape(entry.model.name)}</b> {entry.form}",
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
    """Checked by Plotly, which knows every property's name and values."""
    import plotly.graph_objects as go

    made: Figure = go.Figure(list(traces), {"showlegend": False, "hovermode": "closest", **layout}).to_plotly_json()
    made["layout"].pop("template", None)
    return made
