"""Confidence limits of error rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from reid_edge.errors import InputError, UnsupportedRateError

#: Confidence of all limits.
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Rate:
    """An error rate with its limits.

    Attributes:
        rate: Share of the pairs that are errors.
        low: Lower limit, 95 % confidence on both sides together.
        high: Upper limit.
        pairs: Number of pairs.
        independent: Number of independent pairs that they are worth.
    """

    rate: float
    low: float
    high: float
    pairs: int
    independent: int


@lru_cache(maxsize=1024)
def error_rate(errors: int, pairs: int, independent: int) -> Rate:
    """Return an error rate with Clopper and Pearson's limits (Biometrika 1934).

    Pairs that share a tracklet err together.  So the limits are those of as many pairs as are independent, with the
    same share of errors.

    Args:
        errors: Number of errors.
        pairs: Number of pairs.
        independent: Number of pairs that they are worth, at most ``pairs``.

    Raises:
        InputError: Numbers that cannot be.
    """
    if not 0 <= errors <= pairs or not 0 < independent <= pairs:
        raise InputError(f"expected errors ≤ pairs and 0 < independent ≤ pairs; got {errors}, {pairs}, {independent}.")
    rate = errors / pairs
    of = rate * independent
    each = (1 - CONFIDENCE) / 2
    low = 0.0 if errors == 0 else _beta_quantile(each, of, independent - of + 1)
    high = 1.0 if errors == pairs else _beta_quantile(1 - each, of + 1, independent - of)
    return Rate(rate=rate, low=low, high=high, pairs=pairs, independent=independent)


def pairs_needed(rate: float) -> int:
    """Return the number of independent pairs without an error whose upper limit is a rate."""
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log1p(-rate))


def check_supported(rate: float, independent: int, *, kind: str) -> None:
    """Refuse a rate that would not be shown even if none of the pairs were an error.

    Args:
        rate: The rate that is asked for, above 0 and below 1.
        independent: Number of independent pairs.
        kind: Name of the pairs, for the message.

    Raises:
        InputError: A rate that cannot be.
        UnsupportedRateError: There are too few pairs.
    """
    if not 0 < rate < 1:
        raise InputError(f"expected a rate above 0 and below 1, got {rate}.")
    needed = pairs_needed(rate)
    if independent < needed:
        raise UnsupportedRateError(
            f"a rate of {rate:.3g} needs {needed:,} independent {kind}, there are {independent:,}; "
            f"the lowest that they support is {lowest_rate(independent):.2g}. Ask for that, or wait for more.",
            needed=needed,
            given=independent,
        )


@lru_cache(maxsize=1024)
def errors_allowed(rate: float, pairs: int, independent: int) -> int:
    """Return the largest number of errors of so many pairs whose upper limit is at most a rate; 0 if none is."""
    low, high = 0, pairs - 1
    while low < high:
        middle = (low + high + 1) // 2
        if error_rate(middle, pairs, independent).high <= rate:
            low = middle
        else:
            high = middle - 1
    return low


def lowest_rate(independent: int) -> float:
    """Return the upper limit of the rate of so many pairs without an error."""
    return 1.0 if independent < 1 else 1 - ((1 - CONFIDENCE) / 2) ** (1 / independent)


def _beta_quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):  # to 1e-12
        middle = (low + high) / 2
        if incomplete_beta(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + numerator * d)
            c = _not_zero(1 + numerator / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return math.exp(logarithm) * fraction / a


def _not_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
