"""Each loss against one image, one pair, one class at a time; gradients against differences of that."""

import math

import numpy as np
import pytest
import torch

from reid_edge.training.losses import attribute_loss, entropy, hard_triplet, mutual_divergence

IDENTITIES = [3, 3, 7, 7, 3, 9, 9, 1]  # 1 has no other image


def slope(function, point, step=1e-6):
    """Central differences, one number at a time."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(*point.shape):
        there, back = point.copy(), point.copy()
        there[index] += step
        back[index] -= step
        gradient[index] = (function(there) - function(back)) / (2 * step)
    return gradient


def agrees(ours, obvious, point):
    """Value and gradient, in float64."""
    tensor = torch.tensor(point, requires_grad=True)
    value = ours(tensor)
    value.backward()
    assert value.shape == ()
    assert value.item() == pytest.approx(obvious(point), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(tensor.grad.numpy(), slope(obvious, point), rtol=1e-5, atol=1e-8)


def obvious_triplet(features, margin, normalised):
    rows = [list(row) for row in features]
    if normalised:
        rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
    total = 0.0
    for a, anchor in enumerate(rows):
        farthest, nearest = 0.0, math.inf
        for b, other in enumerate(rows):
            distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(anchor, other, strict=True)))
            if IDENTITIES[a] == IDENTITIES[b]:
                farthest = max(farthest, distance)
            else:
                nearest = min(nearest, distance)
        if margin is None:
            total += math.log(1 + math.exp(farthest - nearest))
        else:
            total += max(0.0, margin + farthest - nearest)
    return total / len(rows)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("margin", [0.3, 1.5, None])
def test_the_triplet_loss_is_that_of_the_obvious_loops(rng, margin, normalised):
    features = rng.standard_normal((len(IDENTITIES), 5)) + 0.5
    agrees(
        lambda x: hard_triplet(x, torch.tensor(IDENTITIES), margin=margin, normalised=normalised),
        lambda x: obvious_triplet(x, margin, normalised),
        features,
    )


def test_a_met_margin_costs_nothing():
    features = torch.tensor([[0.0], [0.1], [5.0], [5.1]], dtype=torch.float64, requires_grad=True)
    identities = torch.tensor([0, 0, 1, 1])
    loss = hard_triplet(features, identities, margin=0.3)
    loss.backward()
    assert loss.item() == 0
    assert (features.grad == 0).all()
    assert hard_triplet(features, identities, margin=5.0).item() == pytest.approx(
        np.mean([5 + 0.1 - 5.0, 5 + 0.1 - 4.9, 5 + 0.1 - 4.9, 5 + 0.1 - 5.0])
    )


@pytest.mark.parametrize("margin", [0.3, None])
@pytest.mark.parametrize("normalised", [False, True])
def test_features_that_are_all_the_same_or_zero_give_finite_gradients(margin, normalised):
    for value in (0.0, 2.0):
        features = torch.full((4, 3), value, requires_grad=True)
        loss = hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=margin, normalised=normalised)
        loss.backward()
        assert loss.item() == pytest.approx(math.log(2) if margin is None else margin)
        assert torch.isfinite(features.grad).all()


def test_a_batch_of_one_identity_has_no_triplets():
    for margin in (0.3, None):
        features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = hard_triplet(features, torch.zeros(4, dtype=torch.int64), margin=margin)
        loss.backward()
        assert loss.item() == 0
        assert (features.grad == 0).all()


def test_small_distances_between_long_features_are_kept():
    """Squared lengths and a matrix product would lose them all in float32."""
    features = torch.full((4, 512), 30.0)
    features[:, 0] += torch.tensor([0.0, 0.01, 0.03, 0.06])
    loss = hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=0.3)
    expected = 0.3 + np.mean([0.01 - 0.03, 0.01 - 0.02, 0.03 - 0.02, 0.03 - 0.05])
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_half_precision_features_are_compared_in_float32():
    features = torch.randn(8, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    identities = torch.tensor(IDENTITIES)
    with torch.autocast("cpu", torch.bfloat16):
        loss = hard_triplet(features, identities, margin=0.3)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(hard_triplet(features.double(), identities, margin=0.3).item(), rel=1e-5)


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def obvious_entropy(logits):
    return sum(-p * math.log(p) for row in logits for p in softmax(row)) / len(logits)


def obvious_divergence(own, other):
    total = 0.0
    for own_row, other_row in zip(own, other, strict=True):
        total += sum(p * math.log(p / q) for p, q in zip(softmax(other_row), softmax(own_row), strict=True))
    return total / len(own)


def test_entropy_is_that_of_the_obvious_loops(rng):
    agrees(entropy, obvious_entropy, 2 * rng.standard_normal((5, 7)))


def test_entropy_is_ln_c_at_most_and_finite_for_a_certain_prediction():
    assert entropy(torch.zeros(3, 10)).item() == pytest.approx(math.log(10))
    certain = torch.tensor([[1e4, 0.0, 0.0]], requires_grad=True)
    entropy(certain).backward()
    assert entropy(certain).item() == 0
    assert torch.isfinite(certain.grad).all()


def test_mutual_divergence_is_that_of_the_obvious_loops(rng):
    own, other = 2 * rng.standard_normal((2, 5, 7))
    agrees(lambda x: mutual_divergence(x, torch.tensor(other)), lambda x: obvious_divergence(x, other), own)


def test_mutual_divergence_teaches_its_own_network_only(rng):
    own, other = (torch.tensor(rng.standard_normal((4, 3)), requires_grad=True) for _ in range(2))
    mutual_divergence(own, other).backward()
    assert own.grad.abs().sum() > 0
    assert other.grad is None


def test_equal_predictions_do_not_diverge(rng):
    logits = torch.tensor(rng.standard_normal((4, 3)))
    assert mutual_divergence(logits, logits + 5).item() == pytest.approx(0, abs=1e-12)


def obvious_attribute_loss(logits, values, rates):
    total = 0.0
    for row, truth in zip(logits, values, strict=True):
        for x, present, rate in zip(row, truth, rates, strict=True):
            p = 1 / (1 + math.exp(-x))
            total -= math.exp(1 - rate) * math.log(p) if present else math.exp(rate) * math.log(1 - p)
    return total / logits.size


@pytest.mark.parametrize("value", [0, 1])
def test_attributes_may_weigh_by_their_rate_alone_or_equally(value):
    logits, values, rates = torch.zeros(1, 2), torch.full((1, 2), value), torch.tensor([0.25, 0.75])
    by_rate = attribute_loss(logits, values, rates, "rate").item()
    assert by_rate == pytest.approx(math.log(2) * (math.exp(-0.25) + math.exp(-0.75)) / 2)
    assert attribute_loss(logits, values, rates, "equal").item() == pytest.approx(math.log(2))


def test_attribute_loss_is_that_of_the_obvious_loops(rng):
    values = rng.integers(0, 2, (6, 4), dtype=np.uint8)
    rates = rng.random(4)
    agrees(
        lambda x: attribute_loss(x, torch.tensor(values), torch.tensor(rates)),
        lambda x: obvious_attribute_loss(x, values, rates),
        2 * rng.standard_normal((6, 4)),
    )


def test_a_rare_attribute_weighs_more_where_it_is_present():
    rates, logit = torch.tensor([0.1, 0.9]), torch.zeros(1, 2)
    present = [attribute_loss(logit, torch.tensor([row]), rates).item() for row in ([1, 1], [0, 1], [1, 0])]
    assert present[2] > present[0] > present[1]  # [1, 0]: both have their rarer value
