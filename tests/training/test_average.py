import pytest
import torch
from torch import nn

from reid_edge.training.average import Average


def module(value):
    layer = nn.BatchNorm1d(2)
    layer.weight.data.fill_(value)
    layer.running_mean.fill_(10 * value)
    return layer


def test_weights_and_buffers_follow_with_the_decay():
    learner = module(1.0)
    average = Average(learner, 0.9)
    expected = 1.0
    for value in (2.0, 5.0, -3.0):
        learner.weight.data.fill_(value)
        learner.running_mean.fill_(10 * value)
        learner.num_batches_tracked.add_(1)
        average.update(torch.tensor(0.1))
        expected = 0.9 * expected + 0.1 * value
    assert average.module.weight.tolist() == pytest.approx([expected] * 2)
    assert average.module.running_mean.tolist() == pytest.approx([10 * expected] * 2)
    assert average.module.num_batches_tracked == 3
    assert learner.weight.tolist() == [-3.0] * 2


def test_average_of_the_first_steps_forgets_where_it_began():
    average = Average(module(0.0), 0.999)
    weights = [average.new_weight(step) for step in range(20000)]
    assert weights[0] == pytest.approx(0.9)
    assert weights[9] == pytest.approx(1 - 10 / 19)
    assert weights[-1] == pytest.approx(0.001)
    assert weights == sorted(weights, reverse=True)


def test_average_is_for_judging_only():
    average = Average(module(1.0).train(), 0.9).module
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
