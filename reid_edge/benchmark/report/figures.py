"""The page's figures: latency against mult-adds, accuracy against latency, percentiles, and the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from reid_edge.benchmark.report.charts import (
    DASHES,
    Figure,
    figure,
    interval,
    log_axis,
    neutral,
    p50,
    variant_fields,
    variant_trace,
    variant_traces,
)
from reid_edge.benchmark.report.data import DeviceResults, Entry, Query, ReportData, models_of, threads_text
from reid_edge.benchmark.report.tables import BASE_SIZE, median, number
from reid_edge.benchmark.result import ModelEntry

ROW_PIXELS = 44
#: The axis and its title.
FOOT_PIXELS = 70
_TICKS = (("min", 8), ("p90", 9), ("p95", 13), ("p99", 17))


def all_figures(report: ReportData) -> dict[str, dict[str, Figure]]:
    """Return every figure by its place on the page and by query: ``latency-0`` is that of the first device."""
    figures: dict[str, dict[str, Figure]] = {}
    for position, device in enumerate(report.devices):
        for query in report.queries:
            for kind, made in _figures(report, device, query).items():
                place = kind.replace("-", f"-{position}-", 1) if "-" in kind else f"{kind}-{position}"
                figures.setdefault(place, {})[str(query)] = made
    return figures


def latency_figure(report: ReportData, device: DeviceResults, query: Query) -> Figure | None:
    """Plot median time against the network's mult-adds, both logarithmic; all devices on the same axes."""
    everywhere = [entry for one in report.devices for entry in one.entries_of(query)]
    groups = _by_variant_and_threads(device.entries_of(query))
    if not groups:
        return None
    traces = [
        variant_trace(
            report,
            entries,
            _millions,
            p50,
            size=9,
            mode="lines+markers",
            error_y=interval(entries),
            line={"dash": _dash(report, entries[0]), "width": 1.5},
        )
        for entries in groups
    ]
    ends = [end for entry in everywhere for end in (entry.run.summary.ci_low, entry.run.summary.ci_high)]
    layout = {
        "xaxis": log_axis(map(_millions, everywhere), "mult-adds of the network, millions"),
        "yaxis": log_axis(ends, "median, ms a query"),
    }
    return figure(traces, layout)


def accuracy_figure(report: ReportData, device: DeviceResults, query: Query, dataset: str) -> Figure | None:
    """Plot mAP against median time, with the Pareto front: variants that no other beats in both."""

    def mean_ap(entry: Entry) -> float:
        accuracy = entry.accuracy(dataset)
        assert accuracy is not None
        return accuracy.mean_ap

    everywhere = [entry for one in report.devices for entry in one.entries_of(query) if entry.accuracy(dataset)]
    entries = [entry for entry in device.entries_of(query) if entry.accuracy(dataset)]
    if not entries:
        return None
    points = variant_traces(report, entries, p50, mean_ap, size=11, dataset=dataset)
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
    """Return the positions of the points (time, accuracy) on the Pareto front, fastest first.

    No other point is at least as fast and at least as accurate as one of them.
    """
    order = sorted(range(len(points)), key=lambda position: (points[position][0], -points[position][1]))
    front: list[int] = []
    for position in order:
        if not front or points[position][1] > points[front[-1]][1]:
            front.append(position)
    return front


def _figures(report: ReportData, device: DeviceResults, query: Query) -> dict[str, Figure]:
    by_model = models_of(device.entries_of(query))
    made = {
        "latency": latency_figure(report, device, query),
        "roofline": roofline_figure(report, device, query),
        **{f"accuracy-{one}": accuracy_figure(report, device, query, one) for one in report.datasets},
        **{f"percentiles-{one}": percentiles_figure(report, entries) for one, entries in by_model.items()},
    }
    return {kind: one for kind, one in made.items() if one is not None}


def _front(entries: Sequence[Entry], heights: Sequence[float]) -> Figure:
    """Draw the front, with each model's name at its fastest point."""
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


def _by_variant_and_threads(entries: Sequence[Entry]) -> list[list[Entry]]:
    groups: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in sorted(entries, key=_millions):
        groups.setdefault((entry.variant, entry.run.threads), []).append(entry)
    return list(groups.values())


def _dash(report: ReportData, entry: Entry) -> str:
    every = sorted({one.run.threads or 0 for one in report.entries})
    return DASHES[every.index(entry.run.threads or 0) % len(DASHES)]


def percentiles_figure(report: ReportData, entries: Sequence[Entry]) -> Figure:
    """Plot each run, fastest first: a line from the shortest time to p99, and the median with its interval.

    Ticks mark p90, p95 and p99.  Labels stand above their lines, so that a phone has room for both.
    """
    rows = sorted(entries, key=p50)
    traces = [
        trace for row, entry in enumerate(rows) for trace in (_line(report, entry, row), _median(report, entry, row))
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


def _line(report: ReportData, entry: Entry, row: int) -> Figure:
    times = [getattr(entry.run.summary, name) for name, _ in _TICKS]
    return {
        "mode": "lines+markers",
        "x": times,
        "y": [row] * len(times),
        "line": {"width": 2},
        "marker": {"symbol": "line-ns-open", "size": [size for _, size in _TICKS], "line": {"width": 2}},
        "hovertext": [f"{name} {number(time)} ms" for (name, _), time in zip(_TICKS, times, strict=True)],
        **variant_fields(report, entry.variant),
    }


def _median(report: ReportData, entry: Entry, row: int) -> Figure:
    return variant_trace(report, [entry], p50, lambda _: row, size=11, error_x=interval([entry]))


def _label(entry: Entry, row: int) -> Figure:
    threads = "auto threads" if entry.run.threads is None else threads_text(entry.run.threads)
    return {
        "name": entry.variant,
        "text": escape(" · ".join((entry.variant, entry.run.execution or threads, f"{median(entry)} ms"))),
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": row,
        "yshift": 19,
        "showarrow": False,
        "align": "left",
    }


def roofline_figure(report: ReportData, device: DeviceResults, query: Query) -> Figure | None:
    """Plot each run's GFLOP/s against the device's measured peaks (Williams et al., CACM 2009)."""
    entries, bandwidth, peaks = device.entries_of(query), device.bandwidth_gbs, device.peaks
    if not entries or bandwidth is None or not peaks:
        return None
    ridges = [peak.gflops / bandwidth for peak in peaks]
    xaxis = log_axis([*(entry.intensity for entry in entries), *ridges], "operations a byte from memory", pad=2.2)
    low, high = (10**end for end in xaxis["range"])
    points = variant_traces(report, entries, lambda entry: entry.intensity, lambda entry: entry.run.gflops)
    heights = [*(entry.run.gflops for entry in entries), *(peak.gflops for peak in peaks), bandwidth * low]
    layout = {"xaxis": xaxis, "yaxis": log_axis(heights, "GFLOP/s", pad=1.5)}
    return figure([*_roofs(device, bandwidth, low, high), *points], layout)


def roofs(device: DeviceResults) -> list[tuple[str, str]]:
    """Return a legend of the roofline's lines: text, and the line's pattern."""
    return [
        (
            f"{peak.arithmetic} {number(peak.gflops)} GFLOP/s"
            + (f", {threads_text(peak.threads)}" if peak.threads else ""),
            DASHES[position % len(DASHES)],
        )
        for position, peak in enumerate(device.peaks)
    ]


def _roofs(device: DeviceResults, bandwidth: float, low: float, high: float) -> list[Figure]:
    return [
        neutral(
            mode="lines",
            x=[low, peak.gflops / bandwidth, high],
            y=[bandwidth * low, peak.gflops, peak.gflops],
            line={"dash": dash, "width": 1.5},
            hoverinfo="text",
            hovertext=[f"memory: {number(bandwidth)} GB/s", *[f"{label}<br>{escape(peak.how)}"] * 2],
        )
        for peak, (label, dash) in zip(device.peaks, roofs(device), strict=True)
    ]
