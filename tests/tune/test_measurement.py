from types import SimpleNamespace

import pytest

from reid_edge.benchmark.result import Energy
from reid_edge.benchmark.timing import Query
from reid_edge.errors import UsageError
from reid_edge.tune.measurement import Objective, Score, StageResult, fastest_first


def result_of(**medians):
    scores = {name: Score(sorted(each)[len(each) // 2], min(each), max(each)) for name, each in medians.items()}
    return StageResult(scores=scores, medians_ms=medians)


ROUNDS = (1.0, 1.1, 5.0, 1.0, 1.2, 1.1)  # the machine was busy in the third


def times(factor):
    return tuple(factor * median for median in ROUNDS)


def test_the_fastest_is_chosen_first():
    result = result_of(plain=times(1.1), fast=times(1.0), middle=times(1.05))
    assert fastest_first(result, ["plain", "middle", "fast"]) == ["fast", "middle", "plain"]
    assert result.order == ["fast", "middle", "plain"]


def test_what_is_no_faster_round_by_round_is_not_chosen_over_what_is_simpler():
    plain = (1.01, 1.09, 5.1, 0.99, 1.22, 1.12)
    assert fastest_first(result_of(plain=plain, clever=ROUNDS), ["plain", "clever"]) == ["plain", "clever"]


def test_a_gain_smaller_than_the_machines_noise_counts_when_every_round_has_it():
    result = result_of(plain=times(1.03), clever=ROUNDS)
    assert fastest_first(result, ["plain", "clever"]) == ["clever", "plain"]


def test_figures_that_are_no_median_tie_only_when_equal():
    result = StageResult(scores={"plain": Score(1.02), "same": Score(1.0), "clever": Score(1.0)})
    assert fastest_first(result, ["plain", "same", "clever"]) == ["same", "clever", "plain"]


def test_one_that_failed_is_not_chosen():
    assert fastest_first(result_of(plain=ROUNDS), ["plain", "failed"]) == ["plain"]


def timing(rounds, crops=1, energy=None):
    return SimpleNamespace(rounds_ms=rounds, query=Query(scenario="multi-stream", crops=crops), energy=energy)


def test_objectives_read_their_figure_from_the_samples():
    rounds = tuple((1.0, 2.0, 3.0, 4.0, 100.0) for _ in range(4))
    assert Objective(goal="p50", crops=8).score(timing(rounds, 8)).value == 3.0
    assert Objective(goal="p99", crops=8).score(timing(rounds, 8)) == Score(100.0)
    assert Objective(goal="throughput").score(timing(rounds, 32)).value == 3.0 / 32
    spent = Energy(joules_per_crop=0.25, mean_watts=9.0, source="test")
    assert Objective(goal="energy", crops=8).score(timing(rounds, 8, spent)) == Score(0.25)
    with pytest.raises(UsageError, match="reports no energy"):
        Objective(goal="energy", crops=8).score(timing(rounds, 8))


def test_a_query_follows_from_the_objective():
    assert Objective(crops=1).query == Query(scenario="single-stream", crops=1)
    assert Objective(crops=6).query == Query(scenario="multi-stream", crops=6)
    assert Objective(goal="throughput", crops=6).query == Query(scenario="offline", crops=32)
    with pytest.raises(UsageError, match="from 1 to 1024, got 0"):
        Objective(crops=0)
