"""What teachers ask for, against the formulas written out."""

import math

import pytest
import torch

from reid_edge.training.distillation import (
    Distillation,
    Taught,
    feature_distance,
    prediction_divergence,
    relation_distance,
)
from reid_edge.training.model import Output
from reid_edge.training.settings import DistillSettings


@pytest.fixture
def batch():
    """Features 6×5, taught 6×2×5, logits 6×4, taught logits of two teachers; float64."""
    rng = torch.Generator().manual_seed(7)

    def random(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return random(6, 5).requires_grad_(), random(6, 2, 5), random(6, 4).requires_grad_(), [random(6, 4), random(6, 4)]


def cosine(one, other):
    one, other = one.detach(), other.detach()
    return float((one * other).sum() / math.sqrt(float((one * one).sum()) * float((other * other).sum())))


def test_the_feature_distance_is_one_minus_the_mean_cosine(batch):
    features, taught, _, _ = batch
    plain = sum(1 - cosine(one, other) for one, other in zip(features, taught[:, 0], strict=True)) / 6
    assert feature_distance(features, taught[:, 0]).item() == pytest.approx(plain, rel=1e-12)


def test_the_gradient_of_the_feature_distance_is_that_of_the_formula(batch):
    features, taught, _, _ = batch
    (found,) = torch.autograd.grad(feature_distance(features, taught[:, 0]), features)
    for row, one, other in zip(found, features.detach(), taught[:, 0], strict=True):
        length, unit = one.norm(), one / one.norm()
        wanted = other / other.norm()
        plain = -(wanted - unit * (unit @ wanted)) / length / 6  # of 1 − cosine, by the quotient rule
        torch.testing.assert_close(row, plain, rtol=1e-10, atol=1e-12)


def test_relations_are_compared_pair_by_pair_with_the_ensembles(batch):
    features, taught, _, _ = batch
    units = torch.nn.functional.normalize(taught, dim=2).flatten(1)  # the concatenated features of both teachers
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    plain = sum((cosine(features[i], features[j]) - cosine(units[i], units[j])) ** 2 for i, j in pairs) / len(pairs)
    assert relation_distance(features, taught).item() == pytest.approx(plain, rel=1e-12)


def test_predictions_are_compared_with_the_teachers_mean_at_the_temperature(batch):
    _, _, logits, taught = batch
    own, wanted = torch.softmax(logits / 3, 1), (torch.softmax(taught[0] / 3, 1) + torch.softmax(taught[1] / 3, 1)) / 2
    plain = 9 * (wanted * (wanted.log() - own.log())).sum(1).mean()
    found = prediction_divergence(logits, taught, 3.0)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, 3 * (own - wanted) / 6, rtol=1e-10, atol=1e-12)  # τ² · (p − q) / τ / N


@pytest.mark.parametrize("name", ["feature", "relations", "logits"])
def test_gradients_hold_numerically(batch, name):
    features, taught, logits, taught_logits = batch
    weights = {"feature": 0.0, "relations": 0.0, "logits": 0.0} | {name: 2.0}
    distillation = Distillation(DistillSettings(**weights))
    first, second = torch.eye(5, dtype=torch.float64), torch.ones(5, 5, dtype=torch.float64).triu()

    def loss(features, logits):
        output = Output(features, logits, (features @ first, features @ second))
        return distillation.weighted(distillation.parts(output, Taught(taught, taught_logits)))

    assert torch.autograd.gradcheck(loss, (features, logits))


def test_a_network_that_is_its_teacher_has_nothing_to_learn(batch):
    features, _, logits, _ = batch
    taught = Taught(features.detach()[:, None], [logits.detach()])
    distillation = Distillation(DistillSettings(feature=1.0, relations=1.0, logits=1.0))
    for part in distillation.parts(Output(features, logits, (features,)), taught).values():
        assert part.item() == pytest.approx(0, abs=1e-12)


def test_each_loss_has_its_weight(batch):
    features, taught, logits, taught_logits = batch
    distillation = Distillation(DistillSettings(feature=2.0, relations=3.0, logits=0.5))
    output = Output(features, logits, (features, features))
    parts = distillation.parts(output, Taught(taught, taught_logits))
    total = 2 * parts["taught_feature"] + 3 * parts["taught_relations"] + 0.5 * parts["taught_logits"]
    torch.testing.assert_close(distillation.weighted(parts), total)
    assert Distillation(DistillSettings(feature=1.0)).parts(output, Taught(taught)).keys() == {"taught_feature"}


def test_each_teachers_feature_is_compared_with_its_own_projection_at_its_own_length(batch):
    features, taught, logits, _ = batch
    taught[:, 1, 3:] = 0  # the second teacher's features have three numbers
    projected = (features @ torch.randn(5, 5, dtype=torch.float64), features[:, :3])
    [found] = Distillation(DistillSettings()).parts(Output(features, logits, projected), Taught(taught)).values()
    both = feature_distance(projected[0], taught[:, 0]), feature_distance(projected[1], taught[:, 1, :3])
    assert found.item() == pytest.approx((both[0].item() + both[1].item()) / 2, rel=1e-12)
