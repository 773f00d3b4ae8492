"""Thresholds at which a stated rate of false answers is kept, and what is missed there."""

from __future__ import annotations

from dataclasses import dataclass

#: Errors that a test must show before its rate is believed: the rule of 30 (Doddington et al., Speech Communication
#: 2000; ISO/IEC 19795-1).  With 30 errors the true rate is within 30 % of the observed one, with 90 % confidence.
_ERRORS = 30


@dataclass(frozen=True)
class OperatingPoint:
    """Error rates at one threshold.

    Attributes:
        limit: Highest rate of false answers that was asked for.
        threshold: Lowest score that is called the same person; infinite where no threshold misses less than all.
        false_rate: Rate of false answers there, FMR or FPIR, at most ``limit``.
        miss_rate: Rate of misses there, FNMR or FNIR.
    """

    limit: float
    threshold: float
    false_rate: float
    miss_rate: float


def is_supported(limit: float, comparisons: int) -> bool:
    """Return True if a rate of false answers can be told from a number of comparisons or searches: the rule of 30.

    Args:
        limit: Rate, in [0, 1].
        comparisons: Number of comparisons or searches that can give a false answer.
    """
    return limit * comparisons >= _ERRORS
