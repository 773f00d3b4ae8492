"""The page's figures: latency against mult-adds, accuracy against latency, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence

from reid_edge.benchmark.report.axes import log_axis
from reid_edge.benchmark.report.percentile_plot import percentiles_figure
from reid_edge.benchmark.report.roofline_plot import roofline_figure
from reid_edge.benchmark.report.survey import Entry, Query, Site, Survey, models_of
from reid_edge.benchmark.report.tables import BASE_SIZE
from reid_edge.benchmark.report.traces import (
    DASHES,
    Figure,
    figure,
    form_trace,
    form_traces,
    interval,
    neutral,
    p50,
)
from reid_edge.benchmark.result import ModelEntry


def all_figures(survey: Survey) -> dict[str, dict[str, Figure]]:
    """Every figure by its place on the page and by query: ``latency-0`` is that of the first device."""
    figures: dict[str, dict[str, Figure]] = {}
    for position, site in enumerate(survey.sites):
        for query in survey.queries:
            for kind, made in _figures(survey, site, query).items():
                place = kind.replace("-", f"-{position}-", 1) if "-" in kind else f"{kind}-{position}"
                figures.setdefault(place, {})[str(query)] = made
    return figures


def latency_figure(survey: Survey, site: Site, query: Query) -> Figure | None:
    """Median time against the network's mult-adds, both logarithmic; all devices on the same axes."""
    everywhere = [entry for one in survey.sites for entry in one.asked(query)]
    groups = _by_form_and_threads(site.asked(query))
    if not groups:
        return None
    traces = [
        form_trace(
            survey,
            entries,
            _millions,
            p50,
            size=9,
            mode="lines+markers",
            error_y=interval(entries),
            line={"dash": _dash(survey, entries[0]), "width": 1.5},
        )
        for entries in groups
    ]
    ends = [end for entry in everywhere for end in (entry.run.summary.ci_low, entry.run.summary.ci_high)]
    layout = {
        "xaxis": log_axis(map(_millions, everywhere), "mult-adds of the network, millions"),
        "yaxis": log_axis(ends, "median, ms a query"),
    }
    return figure(traces, layout)


def accuracy_figure(survey: Survey, site: Site, query: Query, dataset: str) -> Figure | None:
    """Accuracy (mAP) against median time, with the Pareto front: forms that nothing else beats in both."""

    def mean_ap(entry: Entry) -> float:
        accuracy = entry.accuracy(dataset)
        assert accuracy is not None
        return accuracy.mean_ap

    everywhere = [entry for one in survey.sites for entry in one.asked(query) if entry.accuracy(dataset)]
    entries = [entry for entry in site.asked(query) if entry.accuracy(dataset)]
    if not entries:
        return None
    points = form_traces(survey, entries, p50, mean_ap, size=11, dataset=dataset)
    steady = [entry for entry in entries if not entry.noisy] or entries
    front = [steady[position] for position in pareto([(p50(entry), mean_ap(entry)) for entry in steady])]
    low, high = (pick(map(mean_ap, everywhere)) for pick in (min, max))
    room = max(1.0, 0.12 * (high - low))
    layout = {
        "xaxis": log_axis(map(p50, everywhere), "median, ms a query", pad=1.6),
        "yaxis": {"range": [low - room, high + room], "title": {"text": f"mAP, % ({dataset})"}, "nticks": 6},
    }
    return figure([_front(front, [mean_ap(entry) for entry in front]), *points], layout)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (time, accuracy) that no other is at least as good as in both, fastest first."""
    order = sorted(range(len(points)), key=lambda position: (points[position][0], -points[position][1]))
    front: list[int] = []
    for position in order:
        if not front or points[position][1] > points[front[-1]][1]:
            front.append(position)
    return front


def _figures(survey: Survey, site: Site, query: Query) -> dict[str, Figure]:
    made = {
        "latency": latency_figure(survey, site, query),
        "roofline": roofline_figure(survey, site, query),
        **{f"accuracy-{one}": accuracy_figure(survey, site, query, one) for one in survey.datasets},
        **{f"percentiles-{one}": percentiles_figure(survey, of) for one, of in models_of(site.asked(query)).items()},
    }
    return {kind: one for kind, one in made.items() if one is not None}


def _front(entries: Sequence[Entry], heights: Sequence[float]) -> Figure:
    """Each model is named where it comes first."""
    names = [entry.model.name for entry in entries]
    return neutral(
        mode="lines+markers+text",
        x=[p50(entry) for entry in entries],
        y=list(heights),
        text=[_short(one.model) if names.index(one.model.name) == at else "" for at, one in enumerate(entries)],
        textposition="top center",
        cliponaxis=False,
        line={"shape": "hv", "width": 1.5, "dash": "dot"},
        marker={"size": 20, "opacity": 0},  # invisible: it keeps the text off the point
    )


def _short(model: ModelEntry) -> str:
    return f"×{model.width:g}" + ("" if model.size == BASE_SIZE else f" {model.size[0]}×{model.size[1]}")


def _millions(entry: Entry) -> float:
    return entry.model.mult_adds / 1e6


def _by_form_and_threads(entries: Sequence[Entry]) -> list[list[Entry]]:
    groups: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in sorted(entries, key=_millions):
        groups.setdefault((entry.form, entry.run.threads), []).append(entry)
    return list(groups.values())


def _dash(survey: Survey, entry: Entry) -> str:
    every = sorted({one.run.threads or 0 for one in survey.entries})
    return DASHES[every.index(entry.run.threads or 0) % len(DASHES)]
