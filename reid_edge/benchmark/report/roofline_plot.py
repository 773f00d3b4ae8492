"""The roofline: what was reached against what the device can do."""

from __future__ import annotations

from html import escape

from reid_edge.benchmark.report.axes import log_axis
from reid_edge.benchmark.report.survey import Query, Site, Survey, threads_text
from reid_edge.benchmark.report.tables import number
from reid_edge.benchmark.report.traces import DASHES, Figure, figure, form_traces, neutral


def roofline_figure(survey: Survey, site: Site, query: Query) -> Figure | None:
    """What each run reached against what this device reached at best (Williams et al., CACM 2009)."""
    entries, bandwidth, peaks = site.asked(query), site.bandwidth_gbs, site.peaks
    if not entries or bandwidth is None or not peaks:
        return None
    ridges = [peak.gflops / bandwidth for peak in peaks]
    xaxis = log_axis([*(entry.intensity for entry in entries), *ridges], "operations a byte from memory", pad=2.2)
    low, high = (10**end for end in xaxis["range"])
    points = form_traces(survey, entries, lambda entry: entry.intensity, lambda entry: entry.run.gflops)
    heights = [*(entry.run.gflops for entry in entries), *(peak.gflops for peak in peaks), bandwidth * low]
    layout = {"xaxis": xaxis, "yaxis": log_axis(heights, "GFLOP/s", pad=1.5)}
    return figure([*_roofs(site, bandwidth, low, high), *points], layout)


def roofs(site: Site) -> list[tuple[str, str]]:
    """What the lines of the roofline are: text, and the line's pattern."""
    return [
        (
            f"{peak.arithmetic} {number(peak.gflops)} GFLOP/s"
            + (f", {threads_text(peak.threads)}" if peak.threads else ""),
            DASHES[position % len(DASHES)],
        )
        for position, peak in enumerate(site.peaks)
    ]


def _roofs(site: Site, bandwidth: float, low: float, high: float) -> list[Figure]:
    return [
        neutral(
            mode="lines",
            x=[low, peak.gflops / bandwidth, high],
            y=[bandwidth * low, peak.gflops, peak.gflops],
            line={"dash": dash, "width": 1.5},
            hoverinfo="text",
            hovertext=[f"memory: {number(bandwidth)} GB/s", *[f"{label}<br>{escape(peak.how)}"] * 2],
        )
        for peak, (label, dash) in zip(site.peaks, roofs(site), strict=True)
    ]
