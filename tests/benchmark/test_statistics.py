import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.benchmark.statistics import compare, median_interval, nearest_rank, order_below, summarise
from reid_edge.errors import InputError

SAMPLES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60)


@given(SAMPLES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_the_least_sample_that_so_many_do_not_exceed(samples, share):
    found = nearest_rank(sorted(samples), share)
    needed = Fraction(str(share)) * len(samples)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= needed
    assert sum(sample < found for sample in samples) < needed


def test_percentiles_of_a_hundred_are_the_ranks_themselves():
    summary = summarise([range(100, 50, -1), range(1, 51)])
    assert (summary.samples, summary.min, summary.p50, summary.p90, summary.p95, summary.p99) == (
        100,
        1,
        50,
        90,
        95,
        99,
    )


@pytest.mark.parametrize(
    ("count", "lower_rank", "upper_rank"),
    # Conover, Practical Nonparametric Statistics, 3rd ed., § 3.2: ranks of the 95 % interval of the median.
    [(6, 1, 6), (10, 2, 9), (15, 4, 12), (20, 6, 15), (25, 8, 18), (50, 18, 33), (100, 40, 61)],
)
def test_the_medians_interval_has_the_ranks_of_the_published_tables(count, lower_rank, upper_rank):
    assert median_interval(range(1, count + 1)) == (lower_rank, upper_rank)


@pytest.mark.parametrize("count", [6, 7, 33, 200, 1001])
def test_the_interval_is_the_narrowest_that_covers_95_percent(count):
    def miss(below):  # exactly
        return Fraction(2 * sum(math.comb(count, k) for k in range(below + 1)), 2**count)

    below = order_below(count)
    assert miss(below) <= Fraction(5, 100) < miss(below + 1)


def test_a_hundred_thousand_samples_have_an_interval_within_the_normal_approximation():
    count = 100_000
    assert order_below(count) == pytest.approx(count / 2 - 1.96 * math.sqrt(count) / 2, abs=2)


def test_steady_samples_are_steady():
    summary = summarise([[10.0, 10.1, 10.05] * 10, [10.02, 10.1, 10.05] * 10])
    assert (summary.verdict, summary.reasons) == ("steady", ())


def test_one_slow_sample_stays_in():
    summary = summarise([[1.0] * 99 + [500.0]] * 2)
    assert (summary.samples, summary.p50, summary.p99, summary.verdict) == (200, 1.0, 1.0, "steady")
    assert summarise([[1.0] * 97 + [500.0] * 3]).p99 == 500


def test_rounds_that_differ_are_noisy():
    summary = summarise([[10.0] * 40, [10.0] * 40, [11.5] * 40])
    assert summary.round_spread == pytest.approx(0.15)
    assert summary.verdict == "noisy"
    assert summary.reasons == ("medians of rounds differ by 15 %, over 10 %",)


def test_a_wide_interval_is_noisy():
    summary = summarise([[10.0, 12.0] * 10] * 3)
    assert (summary.ci_low, summary.ci_high) == (10, 12)
    assert "interval is 20 % of it, over 5 %" in summary.reasons[0]


def test_five_samples_are_too_few():
    summary = summarise([[1.0, 1.0, 1.0], [1.0, 1.0]])
    assert (summary.ci_low, summary.ci_high, summary.verdict) == (1, 1, "noisy")
    assert "5 samples are too few" in summary.reasons[0]


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0], []]])
def test_rounds_without_samples_are_refused(rounds):
    with pytest.raises(InputError, match="at least one sample"):
        summarise(rounds)


def test_a_slowdown_that_meets_both_does_not_show_in_their_ratio():
    rounds = [[2.0, 2.0, 2.0], [4.0, 4.0, 4.0], [2.0, 2.0, 2.0]]
    reference = [[1.0] * 3, [2.0] * 3, [1.0] * 3]
    ratio = compare(rounds, reference)
    assert (ratio.value, ratio.low, ratio.high) == (2, 2, 2)


def test_the_ratio_is_the_median_of_the_rounds_and_spans_them():
    ratio = compare([[3.0], [2.0], [4.0]], [[2.0], [2.0], [2.0]])
    assert (ratio.low, ratio.value, ratio.high) == (1, 1.5, 2)


def test_ratios_need_the_same_rounds():
    with pytest.raises(InputError, match="same number of rounds"):
        compare([[1.0]], [[1.0], [1.0]])
