"""Spread against pairs one by one; the watch against a real run that collapses and one that does not."""

import math

import pytest
import torch
from torch import nn

from reid_edge.errors import CollapseError
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.network import OSNet
from reid_edge.training.losses import hard_triplet, spread
from reid_edge.training.settings import RunSettings
from reid_edge.training.stopping import CollapseWatch


def obvious_spread(features):
    """One minus the mean cosine of all pairs."""
    cosines = []
    for one in features:
        for other in features:
            dot = sum(x * y for x, y in zip(one, other, strict=True))
            cosines.append(dot / math.sqrt(sum(x * x for x in one)) / math.sqrt(sum(y * y for y in other)))
    return 1 - sum(cosines) / len(cosines)


def test_spread_is_one_minus_the_mean_cosine_of_pairs(rng):
    features = rng.standard_normal((9, 6)) + 3
    assert spread(torch.tensor(features)).item() == pytest.approx(obvious_spread(features.tolist()), rel=1e-12)


def test_spread_does_not_depend_on_length(rng):
    features = torch.tensor(rng.standard_normal((9, 6))) + 3
    lengths = torch.tensor(rng.uniform(1, 100, (9, 1)))
    assert spread(features * lengths).item() == pytest.approx(spread(features).item(), rel=1e-12)


def test_images_at_right_angles_have_the_greatest_spread():
    assert spread(torch.eye(8) * 20).item() == pytest.approx(1 - 1 / 8)


def test_equal_zero_and_vanishing_features_have_none(rng):
    assert spread(torch.full((64, 512), 3.0)).item() == pytest.approx(0, abs=1e-6)
    assert spread(torch.zeros(64, 512)).item() == 0
    noise = torch.tensor(rng.standard_normal((64, 512))) * 1e-4
    assert spread(noise).item() < 1e-3


def test_a_training_step_of_random_weights_is_far_from_the_limit():
    torch.manual_seed(0)
    network = OSNet(OSNetConfig(width=0.25, size=(64, 32)))
    coarse = nn.functional.interpolate(torch.randn(32, 3, 8, 4), scale_factor=8)
    with torch.no_grad():
        assert spread(network(coarse)) > 10 * RunSettings().collapse_spread


def test_spread_gives_no_gradient_and_needs_float32():
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    assert not spread(features).requires_grad
    assert spread(features).dtype == torch.float32


def test_the_watch_stops_after_its_patience_and_says_what_helps():
    watch = CollapseWatch(0.01, 100)
    watch.check(0.5, 0)
    watch.check(0.002, 50)
    watch.check(0.003, 149)
    with pytest.raises(CollapseError, match=r"under 0\.01 for 100 steps and is 0\.0004 at step 150.*triplet_start"):
        watch.check(0.0004, 150)


def test_a_dip_is_no_collapse():
    watch = CollapseWatch(0.01, 100)
    for step in range(0, 1000, 50):
        watch.check(0.5 if step % 100 else 0.001, step)
        assert watch.low == (step % 100 == 0)


def test_a_run_that_ends_under_the_limit_has_collapsed():
    watch = CollapseWatch(0.01, 100)
    watch.check(0.5, 90, last=True)
    with pytest.raises(CollapseError, match="at step 100"):
        watch.check(0.001, 100, last=True)


def test_a_limit_of_0_never_stops():
    watch = CollapseWatch(0.0, 1)
    for step in range(100):
        watch.check(0.0, step)


def test_a_spread_that_is_no_number_counts_as_collapsed():
    watch = CollapseWatch(0.01, 10)
    watch.check(math.nan, 0)
    with pytest.raises(CollapseError):
        watch.check(math.nan, 10)


def test_a_triplet_loss_on_a_hopeless_start_collapses():
    """What the issue reports, in small: while identities cannot be told apart, the cheapest features are none."""
    watch = CollapseWatch(0.01, 30)
    with pytest.raises(CollapseError):
        for step, value in enumerate(_spreads(normalised=False, steps=250)):
            watch.check(value, step)


def test_features_of_unit_length_survive_the_same_start():
    assert min(_spreads(normalised=True, steps=150)) > 0.5


def _spreads(*, normalised, steps):
    """Two layers, 16 identities whose images are ten parts noise; each step's spread."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU()), *(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU())
    )
    head = nn.Linear(128, 16)
    optimiser = torch.optim.SGD([*network.parameters(), *head.parameters()], 0.065, 0.9, weight_decay=5e-4)
    people, identities = torch.randn(16, 16), torch.arange(16).repeat_interleave(4)
    for _ in range(steps):
        features = network(people[identities] + 10 * torch.randn(64, 16))
        triplet = hard_triplet(features, identities, margin=0.3, normalised=normalised)
        loss = nn.functional.cross_entropy(head(features), identities, label_smoothing=0.1) + 0.5 * triplet
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield spread(features).item()
