"""The loss of a step against the sum of its parts, each by torch's own or a loss that is tested on its own."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional

from reid_edge.errors import SettingsError
from reid_edge.training.losses import attribute_loss, entropy, hard_triplet, mutual_divergence, spread
from reid_edge.training.model import Output
from reid_edge.training.objective import Objective
from reid_edge.training.settings import LossSettings, TrainSettings

FIGURES = {"cross_entropy", "triplet", "entropy", "mutual", "accuracy", "spread"}
TARGETS = torch.tensor([0, 0, 1, 1, 2, 2])


def objective(task="identity", rates=None, **loss):
    return Objective(TrainSettings(recipe="scratch", task=task, loss=LossSettings(**loss)), rates)


def outputs(networks=1, classes=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [
        Output(
            torch.randn(6, 8, generator=draw, dtype=torch.float64).requires_grad_(),
            torch.randn(6, classes, generator=draw, dtype=torch.float64).requires_grad_(),
        )
        for _ in range(networks)
    ]


def numbers(parts):
    return {name: value.item() for name, value in parts.items()}


def test_cross_entropy_alone_is_smoothed():
    ((_, logits, _),) = out = outputs()
    parts = numbers(objective(smoothing=0.1)(out, TARGETS, torch.tensor(0.0)))
    log_p = functional.log_softmax(logits, 1)
    expected = -sum(0.9 * log_p[i, t] + 0.1 * log_p[i].mean() for i, t in enumerate(TARGETS)) / 6
    assert parts["loss"] == parts["cross_entropy"] == pytest.approx(expected.item(), rel=1e-12)
    assert parts["triplet"] == parts["entropy"] == parts["mutual"] == 0


def test_every_term_has_its_weight_and_sign():
    out = outputs(networks=2)
    (f1, l1, _), (f2, l2, _) = out
    made = objective(
        cross_entropy=0.9, smoothing=0.0, triplet=0.7, triplet_margin=1.0, triplet_normalised=False, entropy=0.2,
        mutual=1.5,
    )  # fmt: skip
    parts = made(out, TARGETS, torch.tensor(0.7, dtype=torch.float64))
    expected = (
        0.9 * functional.cross_entropy(l1, TARGETS)
        + 0.9 * functional.cross_entropy(l2, TARGETS)
        + 0.7 * (hard_triplet(f1, TARGETS, margin=1.0) + hard_triplet(f2, TARGETS, margin=1.0))
        - 0.2 * (entropy(l1) + entropy(l2))
        + 1.5 * (mutual_divergence(l1, l2) + mutual_divergence(l2, l1))
    )
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-12)
    leaves = [f1, l1, f2, l2]
    ours, wanted = torch.autograd.grad(parts["loss"], leaves), torch.autograd.grad(expected, leaves)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_figures_are_means_over_networks_and_carry_no_gradient():
    out = outputs(networks=2)
    (f1, l1, _), (f2, l2, _) = out
    parts = objective(triplet=0.5, triplet_normalised=False, mutual=1.0)(out, TARGETS, torch.tensor(0.5))
    assert set(parts) == {"loss"} | FIGURES
    assert all(value.shape == () for value in parts.values())
    assert parts["loss"].requires_grad
    assert not any(parts[name].requires_grad for name in FIGURES)
    right = sum(int(row.argmax() == target) for logits in (l1, l2) for row, target in zip(logits, TARGETS, strict=True))
    figures = numbers(parts)
    assert figures["accuracy"] == pytest.approx(right / 12)
    assert figures["mutual"] == pytest.approx((mutual_divergence(l1, l2) + mutual_divergence(l2, l1)).item() / 2)
    triplets = [hard_triplet(features, TARGETS, margin=0.3).item() for features in (f1, f2)]
    assert figures["triplet"] == pytest.approx(sum(triplets) / 2)


def test_the_spread_is_that_of_the_network_that_has_the_least():
    (first, second) = outputs(networks=2)
    collapsed = second._replace(features=second.features * 1e-4)
    made = objective(mutual=1.0)
    for out in ([first, collapsed], [collapsed, first]):
        assert numbers(made(out, TARGETS, torch.tensor(0.0)))["spread"] == pytest.approx(
            spread(collapsed.features).item()
        )
    assert spread(collapsed.features) < spread(first.features)


def test_three_networks_each_hear_the_mean_of_the_others():
    out = outputs(networks=3)
    logits = [each.logits for each in out]
    pairs = [mutual_divergence(own, other).item() for own in logits for other in logits if other is not own]
    assert numbers(objective(mutual=1.0)(out, TARGETS, torch.tensor(0.0)))["mutual"] == pytest.approx(sum(pairs) / 6)


def test_before_its_start_the_triplet_loss_is_seen_but_does_not_teach():
    ((features, _, _),) = out = outputs()
    parts = objective(triplet=0.5)(out, TARGETS, torch.tensor(0.0))
    assert parts["triplet"] > 0
    (gradient,) = torch.autograd.grad(parts["loss"], [features])
    assert (gradient == 0).all()


def test_normalised_and_soft_reach_the_triplet_loss():
    ((features, _, _),) = out = outputs()
    made = objective(triplet=1.0, triplet_normalised=True, triplet_margin=None)
    expected = hard_triplet(features, TARGETS, margin=None, normalised=True).item()
    assert numbers(made(out, TARGETS, torch.tensor(1.0)))["triplet"] == pytest.approx(expected)


def test_attributes_are_weighted_and_judged_one_by_one():
    ((_, logits, _),) = out = outputs(classes=3)
    values, rates = torch.tensor([[1, 0, 1]] * 6, dtype=torch.uint8), torch.tensor([0.1, 0.5, 0.9])
    parts = numbers(objective("attributes", rates, smoothing=0.0)(out, values, torch.tensor(0.0)))
    assert parts["loss"] == parts["cross_entropy"] == pytest.approx(attribute_loss(logits, values, rates).item())
    pairs = zip(logits.flatten().tolist(), values.flatten().tolist(), strict=True)
    right = sum((x > 0) == bool(present) for x, present in pairs)
    assert parts["accuracy"] == pytest.approx(right / 18)


@pytest.mark.parametrize("name", ["triplet", "entropy", "mutual", "smoothing"])
def test_attributes_refuse_losses_of_one_label(name):
    with pytest.raises(SettingsError, match=rf"loss\.{name} is 0\.5, .*loss\.{name}=0"):
        objective("attributes", torch.tensor([0.5]), **({"smoothing": 0.0} | {name: 0.5}))


def test_attributes_need_their_rates():
    with pytest.raises(SettingsError, match="positive_rates, got None"):
        objective("attributes", smoothing=0.0)


def test_nothing_waits_for_the_device():
    """A CUDA graph cannot hold a copy to the host; tensors without data, as these, refuse one."""
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.ones(()).item()
    out = [Output(each.features.detach(), each.logits.detach()) for each in outputs(networks=2)]
    values, rates = torch.ones(6, 4), torch.rand(4)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [Output(mode.from_tensor(each.features), mode.from_tensor(each.logits)) for each in out]
        made = objective(triplet=0.5, entropy=0.1, mutual=1.0)
        assert made(fake, mode.from_tensor(TARGETS), torch.zeros(()))["loss"].shape == ()
        made = objective("attributes", mode.from_tensor(rates), smoothing=0.0)
        assert made(fake, mode.from_tensor(values), torch.zeros(()))["loss"].shape == ()


def test_under_autocast_the_loss_stays_in_float32():
    out = [Output(each.features.detach().float(), each.logits.detach().float()) for each in outputs(networks=2)]
    made = objective(triplet=0.5, entropy=0.1, mutual=1.0)
    plain = made(out, TARGETS, torch.tensor(0.5))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = made(out, TARGETS, torch.tensor(0.5))
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    assert mixed["loss"].item() == plain["loss"].item()
    assert math.isfinite(mixed["loss"].item())
