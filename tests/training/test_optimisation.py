"""The optimisers against their papers' formulas, one number at a time."""

import itertools
import math

import pytest
import torch
from torch import nn

from reid_edge.training.optimisation import (
    ModelEma,
    frozen,
    make_optimiser,
    optimiser_state,
    rate,
    restore_optimiser,
    triplet_weight,
)
from reid_edge.training.recipes import RECIPES
from reid_edge.training.settings import LossSettings, OptimiserSettings, ScheduleSettings

GRADIENTS = [0.5, -0.25, 0.125, 1.0, -0.75, 0.0, 0.3]
RATES = [0.1, 0.1, 0.05, 0.05, 0.02, 0.2, 0.1]


def sgd(value, momentum, decay, nesterov):
    """Sutskever et al., ICML 2013, as torch writes it."""
    buffer = 0.0
    for gradient, step_rate in zip(GRADIENTS, RATES, strict=True):
        gradient += decay * value
        buffer = momentum * buffer + gradient
        value -= step_rate * (gradient + momentum * buffer if nesterov else buffer)
    return value


def adam(value, decay, amsgrad):
    """Kingma and Ba, ICLR 2015; Reddi et al., ICLR 2018."""
    first = second = highest = 0.0
    for step, (gradient, step_rate) in enumerate(zip(GRADIENTS, RATES, strict=True), 1):
        gradient += decay * value
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        highest = max(highest, second)
        scale = math.sqrt((highest if amsgrad else second) / (1 - 0.999**step)) + 1e-8
        value -= step_rate * first / (1 - 0.9**step) / scale
    return value


def run(config, start, steps=range(7), before=None):
    parameters = [nn.Parameter(torch.full((2,), start, dtype=torch.float64)), nn.Parameter(torch.ones(1))]
    step_rate = torch.zeros(())
    optimiser = make_optimiser(parameters, config, step_rate)
    if before:
        parameters[0].data.copy_(before[0])
        restore_optimiser(optimiser, before[1])
    for step in steps:
        step_rate.fill_(RATES[step])
        parameters[0].grad = torch.full((2,), GRADIENTS[step], dtype=torch.float64)
        optimiser.step()
    return parameters, optimiser


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    config = OptimiserSettings(name="sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    parameters, _ = run(config, 2.0)
    assert parameters[0].tolist() == pytest.approx([sgd(2.0, 0.9, 0.01, nesterov)] * 2, rel=1e-7)


def test_sgd_without_momentum():
    parameters, _ = run(OptimiserSettings(name="sgd", momentum=0.0, weight_decay=0.01), 2.0)
    assert parameters[0].tolist() == pytest.approx([sgd(2.0, 0.0, 0.01, nesterov=False)] * 2, rel=1e-7)


@pytest.mark.parametrize("name", ["adam", "amsgrad"])
def test_adam(name):
    parameters, _ = run(OptimiserSettings(name=name, weight_decay=0.01), 2.0)
    assert parameters[0].tolist() == pytest.approx([adam(2.0, 0.01, name == "amsgrad")] * 2, rel=1e-6)


def test_adam_and_amsgrad_differ_on_these_gradients():
    assert adam(2.0, 0.01, amsgrad=True) != pytest.approx(adam(2.0, 0.01, amsgrad=False), rel=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "amsgrad"])
def test_parameter_without_gradient_is_left_alone(name):
    parameters, optimiser = run(OptimiserSettings(name=name, weight_decay=0.1), 2.0)
    assert parameters[1].item() == 1.0
    assert all(not tensor.any() for tensor in optimiser_state(optimiser)[1].values())


@pytest.mark.parametrize("name", ["sgd", "adam", "amsgrad"])
def test_parameter_that_joins_later_starts_its_own_state(name):
    config = OptimiserSettings(name=name, weight_decay=0.0)
    late, other = (nn.Parameter(torch.ones(1)) for _ in range(2))
    optimiser = make_optimiser([late, other], config, torch.tensor(0.1))
    other.grad = torch.ones(1)
    optimiser.step()
    late.grad = torch.ones(1)
    other.grad = None
    optimiser.step()
    assert late.item() == other.item()


@pytest.mark.parametrize("name", ["sgd", "adam", "amsgrad"])
def test_restored_state_continues_bit_by_bit(name):
    config = OptimiserSettings(name=name, weight_decay=0.01)
    whole, _ = run(config, 2.0)
    parameters, optimiser = run(config, 2.0, range(3))
    saved = {
        number: {key: each.clone() for key, each in own.items()} for number, own in optimiser_state(optimiser).items()
    }
    rest, _ = run(config, -1.0, range(3, len(GRADIENTS)), before=(parameters[0].data.clone(), saved))
    assert torch.equal(rest[0], whole[0])


def test_restoring_keeps_the_tensors_where_they_are():
    _, optimiser = run(OptimiserSettings(name="amsgrad"), 2.0)
    before = [tensor.data_ptr() for own in optimiser_state(optimiser).values() for tensor in own.values()]
    restore_optimiser(optimiser, optimiser_state(run(OptimiserSettings(name="amsgrad"), 1.0)[1]))
    assert before == [tensor.data_ptr() for own in optimiser_state(optimiser).values() for tensor in own.values()]


def test_state_of_another_optimiser():
    _, adam_optimiser = run(OptimiserSettings(name="adam"), 2.0)
    _, optimiser = run(OptimiserSettings(name="amsgrad"), 2.0)
    with pytest.raises(KeyError, match="max_exp_avg_sq"):
        restore_optimiser(optimiser, optimiser_state(adam_optimiser))


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
    found = rates(ScheduleSettings(epochs=4, milestones=(2,), gamma=0.5))
    assert found == [1.0] * 14 + [0.5] * 14


def test_warmup_is_a_straight_line_from_a_hundredth_that_ends_at_the_highest():
    found = rates(ScheduleSettings(epochs=4, milestones=(), warmup=2))
    assert found[0] == pytest.approx(0.01)
    assert found[14:] == [1.0] * 14
    assert [b - a for a, b in itertools.pairwise(found[:15])] == pytest.approx([0.99 / 14] * 14)


def test_cosine_goes_from_the_highest_towards_nothing():
    found = rates(ScheduleSettings(epochs=5, kind="cosine", milestones=()), base=0.3, steps=8)
    assert found == pytest.approx([0.15 * (1 + math.cos(math.pi * step / 40)) for step in range(40)])
    assert found[0] == 0.3
    assert found[20] == pytest.approx(0.15)
    assert 0 < found[-1] < 0.001


def test_cosine_begins_where_the_warmup_ends():
    found = rates(ScheduleSettings(epochs=3, kind="cosine", milestones=(), warmup=1), steps=10)
    assert found[10] == 1.0
    assert found[20] == pytest.approx(0.5)
    assert max(found) == found[10]


def test_cosine_after_the_end_stays_at_nothing():
    schedule = ScheduleSettings(epochs=2, kind="cosine", milestones=())
    assert rate(schedule, 1.0, 20, 10) == rate(schedule, 1.0, 35, 10) == 0.0


def test_a_schedule_of_warmup_only():
    assert 0 <= rate(ScheduleSettings(epochs=2, kind="cosine", milestones=(), warmup=2), 1.0, 20, 10) <= 1


def test_triplet_weight_starts_at_its_epoch():
    loss = LossSettings(triplet=0.5, triplet_start=3)
    assert [triplet_weight(loss, epoch) for epoch in range(5)] == [0, 0, 0, 0.5, 0.5]


def test_frozen_stage_is_whole_epochs():
    found = [frozen(ScheduleSettings(epochs=5, frozen=2), step, 3) for step in range(15)]
    assert found == [True] * 6 + [False] * 9


def module(value):
    layer = nn.BatchNorm1d(2)
    layer.weight.data.fill_(value)
    layer.running_mean.fill_(10 * value)
    return layer


def test_weights_and_buffers_follow_with_the_decay():
    source = module(1.0)
    ema = ModelEma(source, 0.9)
    expected = 1.0
    for value in (2.0, 5.0, -3.0):
        source.weight.data.fill_(value)
        source.running_mean.fill_(10 * value)
        source.num_batches_tracked.add_(1)
        ema.update(torch.tensor(0.1))
        expected = 0.9 * expected + 0.1 * value
    assert ema.module.weight.tolist() == pytest.approx([expected] * 2)
    assert ema.module.running_mean.tolist() == pytest.approx([10 * expected] * 2)
    assert ema.module.num_batches_tracked == 3
    assert source.weight.tolist() == [-3.0] * 2


def test_average_of_the_first_steps_forgets_where_it_began():
    ema = ModelEma(module(0.0), 0.999)
    weights = [ema.new_weight(step) for step in range(20000)]
    assert weights[0] == pytest.approx(0.9)
    assert weights[9] == pytest.approx(1 - 10 / 19)
    assert weights[-1] == pytest.approx(0.001)
    assert weights == sorted(weights, reverse=True)


def test_an_average_is_for_evaluation_only():
    ema = ModelEma(module(1.0).train(), 0.9).module
    assert not ema.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())
