"""Statistics over the samples of several rounds; no sample is ever left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from reid_edge.benchmark.result import Summary
from reid_edge.errors import InputError

CONFIDENCE = 0.95
#: A confidence interval wider than this share of the median cannot separate variants whose difference matters.
MOST_INTERVAL = 0.05
#: Medians of rounds further apart than this share of the median: something else ran, or the clock changed.
MOST_ROUND_SPREAD = 0.10


def summarise(rounds_ms: Sequence[Sequence[float]]) -> Summary:
    """Compute percentiles, the confidence interval of the median, and whether the median is reliable.

    The interval assumes independent samples.  Those of one round are not quite: what changes between rounds shows in
    ``round_spread``.  The verdict is ``noisy`` when the interval is wider than 5 % of the median, when the medians of
    rounds differ by more than 10 %, or when there are too few samples for a 95 % interval (fewer than 6).

    Args:
        rounds_ms: Samples of each round, milliseconds.

    Raises:
        InputError: A round without a sample, or no round.
    """
    if not rounds_ms or not all(rounds_ms):
        raise InputError("expected at least one sample in each of one or more rounds; time for longer.")
    ordered = sorted(chain.from_iterable(rounds_ms))
    p50 = nearest_rank(ordered, 0.50)
    low, high = median_interval(ordered)
    medians = [nearest_rank(sorted(samples), 0.50) for samples in rounds_ms]
    spread = (max(medians) - min(medians)) / p50
    reasons = _reasons(len(ordered), (high - low) / p50, spread)
    return Summary(
        samples=len(ordered),
        min=ordered[0],
        p50=p50,
        p90=nearest_rank(ordered, 0.90),
        p95=nearest_rank(ordered, 0.95),
        p99=nearest_rank(ordered, 0.99),
        ci_low=low,
        ci_high=high,
        round_spread=spread,
        verdict="noisy" if reasons else "steady",
        reasons=reasons,
    )


def _reasons(samples: int, interval: float, spread: float) -> tuple[str, ...]:
    reasons = []
    if order_below(samples) is None:
        reasons.append(f"{samples} samples are too few for a 95 % interval of the median")
    if interval > MOST_INTERVAL:
        reasons.append(f"the median's 95 % interval is {100 * interval:.0f} % of it, over {100 * MOST_INTERVAL:.0f} %")
    if spread > MOST_ROUND_SPREAD:
        reasons.append(f"medians of rounds differ by {100 * spread:.0f} %, over {100 * MOST_ROUND_SPREAD:.0f} %")
    return tuple(reasons)


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """Return a percentile by nearest rank: the smallest sample that at least this share of all do not exceed.

    Args:
        ordered: At least one sample, ascending.
        share: In (0, 1].
    """
    # 0.95 · 20 is 19.000000000000004 in floats for some shares: no rank more for that.
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return two samples between which the median of the distribution lies with at least 95 % confidence.

    From order statistics (David & Nagaraja, *Order Statistics*, 3rd ed., § 7.1): the k-th smallest and k-th largest of
    n hold the median with probability 1 − 2·P(Bin(n, ½) < k), whatever the distribution.  With fewer than 6 samples
    there is no such pair: the smallest and largest, at less confidence.

    Args:
        ordered: At least one sample, ascending.
    """
    below = order_below(len(ordered)) or 0
    return ordered[below], ordered[len(ordered) - 1 - below]


def order_below(count: int) -> int | None:
    """Return the number of samples below the interval's lower end: the largest k with P(Bin(n, ½) ≤ k) ≤ 2.5 %.

    None where there is no such k: fewer than 6 samples.
    """
    # Nothing that counts lies more than 8 standard deviations (√n / 2) from the middle.
    start = max(0, math.floor(count / 2 - 4 * math.sqrt(count)))
    tail, below = 0.0, None
    for k in range(start, count + 1):
        tail += math.exp(math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) - count * math.log(2))
        if tail > (1 - CONFIDENCE) / 2:
            return below
        below = k
    return below


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of two times: median over rounds, and its 95 % interval."""

    value: float
    low: float
    high: float


def compare(rounds_ms: Sequence[Sequence[float]], reference_ms: Sequence[Sequence[float]]) -> Ratio:
    """Compare two variants timed in the same interleaved rounds: a slow moment of the machine slows both.

    Args:
        rounds_ms: One variant's samples of each round.
        reference_ms: The other's samples of the same rounds.

    Returns:
        Median over rounds of the ratio of the medians, and its 95 % interval by order statistics; with fewer than 6
        rounds the smallest and largest ratio.

    Raises:
        InputError: They have different numbers of rounds, or a round has no sample.
    """
    if len(rounds_ms) != len(reference_ms) or not rounds_ms or not all(chain(rounds_ms, reference_ms)):
        raise InputError("expected the same number of rounds of both, at least one, each with a sample.")
    ratios = sorted(
        nearest_rank(sorted(one), 0.50) / nearest_rank(sorted(other), 0.50)
        for one, other in zip(rounds_ms, reference_ms, strict=True)
    )
    low, high = median_interval(ratios)
    return Ratio(value=nearest_rank(ratios, 0.50), low=low, high=high)
