import itertools
import math

import pytest

from reid_edge.training.config import LossConfig, ScheduleConfig
from reid_edge.training.recipes import RECIPES
from reid_edge.training.schedule import frozen, rate, triplet_weight


def rates(schedule, base=1.0, steps=7):
    return [rate(schedule, base, step, steps) for step in range(schedule.epochs * steps)]


def test_paper_schedule_from_scratch():
    schedule = RECIPES["scratch"].schedule
    by_epoch = [rate(schedule, 0.065, epoch * 201, 201) for epoch in range(350)]
    assert by_epoch[:150] == [0.065] * 150
    assert by_epoch[150:225] == pytest.approx([0.0065] * 75)
    assert by_epoch[225:300] == pytest.approx([0.00065] * 75)
    assert by_epoch[300:] == pytest.approx([0.000065] * 50)


def test_rate_falls_at_the_first_step_of_the_milestone():
    found = rates(ScheduleConfig(epochs=4, milestones=(2,), gamma=0.5))
    assert found == [1.0] * 14 + [0.5] * 14


def test_warmup_is_a_straight_line_from_a_hundredth_that_ends_at_the_highest():
    found = rates(ScheduleConfig(epochs=4, milestones=(), warmup=2))
    assert found[0] == pytest.approx(0.01)
    assert found[14:] == [1.0] * 14
    assert [b - a for a, b in itertools.pairwise(found[:15])] == pytest.approx([0.99 / 14] * 14)


def test_cosine_goes_from_the_highest_towards_nothing():
    found = rates(ScheduleConfig(epochs=5, kind="cosine", milestones=()), base=0.3, steps=8)
    assert found == pytest.approx([0.15 * (1 + math.cos(math.pi * step / 40)) for step in range(40)])
    assert found[0] == 0.3
    assert found[20] == pytest.approx(0.15)
    assert 0 < found[-1] < 0.001


def test_cosine_begins_where_the_warmup_ends():
    found = rates(ScheduleConfig(epochs=3, kind="cosine", milestones=(), warmup=1), steps=10)
    assert found[10] == 1.0
    assert found[20] == pytest.approx(0.5)
    assert max(found) == found[10]


def test_cosine_after_the_end_stays_at_nothing():
    schedule = ScheduleConfig(epochs=2, kind="cosine", milestones=())
    assert rate(schedule, 1.0, 20, 10) == rate(schedule, 1.0, 35, 10) == 0.0


def test_a_schedule_of_warmup_only():
    assert 0 <= rate(ScheduleConfig(epochs=2, kind="cosine", milestones=(), warmup=2), 1.0, 20, 10) <= 1


def test_triplet_weight_starts_at_its_epoch():
    loss = LossConfig(triplet=0.5, triplet_start=3)
    assert [triplet_weight(loss, epoch) for epoch in range(5)] == [0, 0, 0, 0.5, 0.5]


def test_frozen_stage_is_whole_epochs():
    found = [frozen(ScheduleConfig(epochs=5, frozen=2), step, 3) for step in range(15)]
    assert found == [True] * 6 + [False] * 9
