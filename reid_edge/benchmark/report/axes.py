"""Logarithmic axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

#: An axis spans at least this factor, so that a single point has a scale.
LEAST_SPAN = 3.0


def log_axis(values: Iterable[float], title: str, *, pad: float = 1.35) -> dict[str, Any]:
    """A Plotly axis that shows all values with room around them, and a handful of ticks.

    Args:
        values: Positive numbers; at least one.
        title: What is shown, with its unit.
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
    """Round numbers between two positive ones, coarser the more decades there are."""
    span = math.log10(high / low)
    steps = (1.0,) if span > 3.2 else (1.0, 3.0) if span > 2.2 else (1.0, 2.0, 5.0) if span > 0.75 else _FINE
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = (float(f"{step}e{decade}") for decade in decades for step in steps)
    return [tick for tick in candidates if low <= tick <= high]


_FINE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
