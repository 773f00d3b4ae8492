"""The optimisers against their papers' formulas, one number at a time."""

import math

import pytest
import torch
from torch import nn

from reid_edge.training.config import OptimiserConfig
from reid_edge.training.optimiser import make_optimiser, optimiser_state, restore_optimiser

GRADIENTS = [0.5, -0.25, 0.125, 1.0, -0.75, 0.0, 0.3]
RATES = [0.1, 0.1, 0.05, 0.05, 0.02, 0.2, 0.1]


def sgd(value, momentum, decay, nesterov):
    """Sutskever et al., ICML 2013, as torch writes it."""
    buffer = 0.0
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        gradient += decay * value
        buffer = momentum * buffer + gradient
        value -= rate * (gradient + momentum * buffer if nesterov else buffer)
    return value


def adam(value, decay, amsgrad):
    """Kingma and Ba, ICLR 2015; Reddi et al., ICLR 2018."""
    first = second = highest = 0.0
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), 1):
        gradient += decay * value
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        highest = max(highest, second)
        scale = math.sqrt((highest if amsgrad else second) / (1 - 0.999**step)) + 1e-8
        value -= rate * first / (1 - 0.9**step) / scale
    return value


def run(config, start, steps=range(7), before=None):
    parameters = [nn.Parameter(torch.full((2,), start, dtype=torch.float64)), nn.Parameter(torch.ones(1))]
    rate = torch.zeros(())
    optimiser = make_optimiser(parameters, config, rate)
    if before:
        parameters[0].data.copy_(before[0])
        restore_optimiser(optimiser, before[1])
    for step in steps:
        rate.fill_(RATES[step])
        parameters[0].grad = torch.full((2,), GRADIENTS[step], dtype=torch.float64)
        optimiser.step()
    return parameters, optimiser


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    config = OptimiserConfig(name="sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    parameters, _ = run(config, 2.0)
    assert parameters[0].tolist() == pytest.approx([sgd(2.0, 0.9, 0.01, nesterov)] * 2, rel=1e-7)


def test_sgd_without_momentum():
    parameters, _ = run(OptimiserConfig(name="sgd", momentum=0.0, weight_decay=0.01), 2.0)
    assert parameters[0].tolist() == pytest.approx([sgd(2.0, 0.0, 0.01, nesterov=False)] * 2, rel=1e-7)


@pytest.mark.parametrize("name", ["adam", "amsgrad"])
def test_adam(name):
    parameters, _ = run(OptimiserConfig(name=name, weight_decay=0.01), 2.0)
    assert parameters[0].tolist() == pytest.approx([adam(2.0, 0.01, name == "amsgrad")] * 2, rel=1e-6)


def test_adam_and_amsgrad_differ_on_these_gradients():
    assert adam(2.0, 0.01, amsgrad=True) != pytest.approx(adam(2.0, 0.01, amsgrad=False), rel=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "amsgrad"])
def test_parameter_without_gradient_is_left_alone(name):
    parameters, optimiser = run(OptimiserConfig(name=name, weight_decay=0.1), 2.0)
    assert parameters[1].item() == 1.0
    assert all(not tensor.any() for tensor in optimiser_state(optimiser)[1].values())


@pytest.mark.parametrize("name", ["sgd", "adam", "amsgrad"])
def test_parameter_that_joins_later_starts_its_own_state(name):
    config = OptimiserConfig(name=name, weight_decay=0.0)
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
    config = OptimiserConfig(name=name, weight_decay=0.01)
    whole, _ = run(config, 2.0)
    parameters, optimiser = run(config, 2.0, range(3))
    saved = {
        number: {key: each.clone() for key, each in own.items()} for number, own in optimiser_state(optimiser).items()
    }
    rest, _ = run(config, -1.0, range(3, len(GRADIENTS)), before=(parameters[0].data.clone(), saved))
    assert torch.equal(rest[0], whole[0])


def test_restoring_keeps_the_tensors_where_they_are():
    _, optimiser = run(OptimiserConfig(name="amsgrad"), 2.0)
    before = [tensor.data_ptr() for own in optimiser_state(optimiser).values() for tensor in own.values()]
    restore_optimiser(optimiser, optimiser_state(run(OptimiserConfig(name="amsgrad"), 1.0)[1]))
    assert before == [tensor.data_ptr() for own in optimiser_state(optimiser).values() for tensor in own.values()]


def test_state_of_another_optimiser():
    _, adam_optimiser = run(OptimiserConfig(name="adam"), 2.0)
    _, optimiser = run(OptimiserConfig(name="amsgrad"), 2.0)
    with pytest.raises(KeyError, match="max_exp_avg_sq"):
        restore_optimiser(optimiser, optimiser_state(adam_optimiser))
