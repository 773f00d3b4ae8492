import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.errors import InputError, UnsupportedRateError
from reid_edge.identity.intervals import (
    check_supported,
    error_rate,
    errors_allowed,
    incomplete_beta,
    lowest_rate,
    pairs_needed,
)


@pytest.mark.parametrize(
    ("errors", "pairs", "low", "high"),
    [  # by scipy.stats.beta.ppf
        (0, 10, 0.0, 0.3084971),
        (1, 10, 0.002528579, 0.4450161),
        (5, 10, 0.187086, 0.812914),
        (10, 10, 0.6915029, 1.0),
        (4, 1000, 0.00109091, 0.01020966),
    ],
)
def test_limits_are_those_of_clopper_and_pearson(errors, pairs, low, high):
    rate = error_rate(errors, pairs, pairs)
    assert (rate.low, rate.high) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))
    assert rate.rate == errors / pairs


@given(st.integers(1, 60), st.data())
def test_the_limits_are_where_the_binomial_tails_are_a_fortieth(pairs, data):
    errors = data.draw(st.integers(0, pairs))
    rate = error_rate(errors, pairs, pairs)

    def at_most(count, share):
        return sum(math.comb(pairs, k) * share**k * (1 - share) ** (pairs - k) for k in range(count + 1))

    assert rate.low <= rate.rate <= rate.high
    if errors < pairs:
        assert at_most(errors, rate.high) == pytest.approx(0.025, rel=1e-6)
    if errors:
        assert 1 - at_most(errors - 1, rate.low) == pytest.approx(0.025, rel=1e-6)


def test_the_incomplete_beta_function_has_its_closed_forms():
    assert incomplete_beta(0.3, 1, 1) == pytest.approx(0.3)
    assert incomplete_beta(0.3, 2, 1) == pytest.approx(0.09)
    assert incomplete_beta(0.3, 1, 4) == pytest.approx(1 - 0.7**4)
    assert (incomplete_beta(0, 2, 3), incomplete_beta(1, 2, 3)) == (0, 1)


def test_pairs_that_share_tracklets_have_wider_limits():
    wide, narrow = error_rate(10, 1000, 100), error_rate(10, 1000, 1000)
    assert wide.rate == narrow.rate and wide.low < narrow.low and wide.high > narrow.high


def test_a_rate_that_the_pairs_cannot_support_is_refused_with_the_number_needed():
    needed = pairs_needed(0.01)
    assert needed == 368 and error_rate(0, needed, needed).high <= 0.01 < error_rate(0, needed - 1, needed - 1).high
    check_supported(0.01, needed, kind="pairs")
    with pytest.raises(UnsupportedRateError, match="needs 368 independent pairs, there are 100") as refused:
        check_supported(0.01, 100, kind="pairs")
    assert (refused.value.needed, refused.value.given) == (368, 100)
    check_supported(lowest_rate(100), 100, kind="pairs")


@pytest.mark.parametrize("rate", [0, 1, -0.1, math.nan])
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(InputError, match="above 0"):
        check_supported(rate, 1000, kind="pairs")


def test_numbers_that_cannot_be_are_refused():
    for errors, pairs, independent in ((3, 2, 2), (0, 2, 3), (0, 0, 0)):
        with pytest.raises(InputError):
            error_rate(errors, pairs, independent)


def test_errors_allowed_are_the_most_whose_limit_is_below_the_rate():
    allowed = errors_allowed(0.05, 1000, 400)
    assert error_rate(allowed, 1000, 400).high <= 0.05 < error_rate(allowed + 1, 1000, 400).high
    assert errors_allowed(1e-9, 10, 10) == 0
