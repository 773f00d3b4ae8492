"""Batch-norm statistics of a place."""

import dataclasses

import numpy as np
import pytest
import torch

from reid_edge.crops import normalised
from reid_edge.errors import AdaptationError
from reid_edge.features import row_cosines
from reid_edge.osnet.adaptation import MIN_CROPS, adapt, batch_norms, check_crops, different_crops
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.osnet.checkpoint import Adaptation, Checkpoint, CheckpointInfo, Head, load_checkpoint, save_checkpoint
from reid_edge.osnet.network import OSNet
from tests.osnet.test_variants import unlike_new

SIZE = (48, 24)
ABOUT = Adaptation(place="hall", origin="made-up crops", created="2026-11-28T10:00:00+00:00")


def crops_of(seed: int, count: int = MIN_CROPS, low: int = 0, high: int = 256) -> np.ndarray:
    """Crops with blocks of colours: neighbouring pixels are alike, as in photographs."""
    blocks = np.random.default_rng(seed).integers(low, high, (count, 6, 3, 3))
    return blocks.repeat(8, 1).repeat(8, 2).astype(np.uint8)


def checkpoint_of(variant: NetworkVariant | None = None, **fields) -> Checkpoint:
    info = CheckpointInfo(width=0.1, size=SIZE, variant=variant or NetworkVariant(), metrics={"mAP": 0.5}, **fields)
    torch.manual_seed(1)
    return Checkpoint(info, unlike_new(OSNet(info.config)).state_dict())


def features(checkpoint: Checkpoint, crops: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return checkpoint.network()(
            torch.from_numpy(normalised(crops, checkpoint.info.mean, checkpoint.info.std))
        ).numpy()


@pytest.fixture(scope="module")
def adapted():
    before = checkpoint_of()
    return before, adapt(before, crops_of(0), ABOUT)


def test_every_batch_norm_gets_the_statistics_that_the_crops_cause_and_nothing_else_changes(adapted):
    before, done = adapted
    after = done.checkpoint
    changed = {name for name, tensor in after.state.items() if not torch.equal(tensor, before.state[name])}
    norms = batch_norms(before.network())
    assert changed == {f"{name}.running_{what}" for name in norms for what in ("mean", "var")}
    assert [layer.name for layer in done.layers] == list(norms)
    x = torch.from_numpy(normalised(crops_of(0), before.info.mean, before.info.std))
    with torch.no_grad():
        first = before.network().conv1.conv(x)
    mean = first.mean((0, 2, 3))
    torch.testing.assert_close(after.state["conv1.norm.running_mean"], mean, rtol=1e-4, atol=1e-4)
    # Spread within two batches, and so a little less than over all.
    torch.testing.assert_close(after.state["conv1.norm.running_var"], first.var((0, 2, 3)), rtol=0.05, atol=0)


def test_later_layers_get_the_statistics_that_they_see_once_the_earlier_ones_are_adapted(adapted):
    _, done = adapted
    network = done.checkpoint.network()
    seen = []
    network.conv5.norm.register_forward_pre_hook(lambda _norm, given: seen.append(given[0]))
    x = torch.from_numpy(normalised(crops_of(0), done.checkpoint.info.mean, done.checkpoint.info.std))
    with torch.no_grad():
        network(x)
    off = (seen[0].mean((0, 2, 3)) - network.conv5.norm.running_mean) / network.conv5.norm.running_var.sqrt()
    assert off.square().mean().sqrt() < 0.1


def faded(crops: np.ndarray) -> np.ndarray:
    """Half the contrast, around the colour that the network takes for zero."""
    grey = 255 * np.array(CheckpointInfo(width=0.1).mean[::-1])
    return np.round(grey + 0.5 * (crops - grey)).astype(np.uint8)


def test_a_place_with_less_contrast_gives_the_features_of_one_with_more():
    bright, unseen = crops_of(1), crops_of(2, 40)
    home = adapt(checkpoint_of(), bright, ABOUT).checkpoint
    there = adapt(home, faded(bright), ABOUT).checkpoint
    wanted = features(home, unseen)
    assert row_cosines(features(home, faded(unseen)), wanted).mean() < 0.8
    assert row_cosines(features(there, faded(unseen)), wanted).mean() > 0.93


def test_the_new_checkpoint_has_its_own_hash_says_where_it_comes_from_and_claims_no_figures(adapted, tmp_path):
    before, done = adapted
    path = tmp_path / "adapted.safetensors"
    save_checkpoint(done.checkpoint, path)
    loaded = load_checkpoint(path)
    assert loaded.sha256 == done.checkpoint.sha256 != before.sha256
    assert loaded.info.metrics == {}
    expected = dataclasses.replace(ABOUT, crops=MIN_CROPS, checkpoint_sha256=before.sha256)
    assert loaded.info.adaptations == (expected,)
    again = adapt(loaded, crops_of(5), dataclasses.replace(ABOUT, place="yard")).checkpoint
    assert [one.place for one in again.info.adaptations] == ["hall", "yard"]
    assert again.info.adaptations[1].checkpoint_sha256 == loaded.sha256


def test_the_same_crops_give_the_same_checkpoint(adapted):
    before, done = adapted
    assert adapt(before, crops_of(0), ABOUT).checkpoint.sha256 == done.checkpoint.sha256


@pytest.mark.parametrize(
    "variant", [NetworkVariant(ain=True), NetworkVariant(instance_norm=True), NetworkVariant(fusion="fixed")]
)
def test_variants_are_adapted_too(variant):
    before = checkpoint_of(variant)
    done = adapt(before, crops_of(0), ABOUT)
    changed = [name for name, tensor in done.checkpoint.state.items() if not torch.equal(tensor, before.state[name])]
    assert changed
    assert all("running" in name for name in changed)


def test_a_head_stays():
    head = Head(names=("a", "b"), weight=torch.ones(2, 512), bias=torch.zeros(2), kind="category")
    before = dataclasses.replace(checkpoint_of(), head=head)
    assert adapt(before, crops_of(0), ABOUT).checkpoint.head is head


def test_too_few_crops_are_refused():
    with pytest.raises(AdaptationError, match=f"{MIN_CROPS - 1} different crops are too few.*at least {MIN_CROPS}"):
        adapt(checkpoint_of(), crops_of(0, MIN_CROPS - 1), ABOUT)
    with pytest.raises(AdaptationError, match="a longer video"):
        check_crops(3, of_videos=True)


def test_the_same_picture_again_counts_once():
    crops = list(crops_of(0, 10))
    assert len(different_crops([*crops, *crops_of(0, 10)])) == 10


def test_crops_that_are_almost_one_picture_are_refused():
    crops = np.full((MIN_CROPS, *SIZE, 3), 90, np.uint8)
    crops[np.arange(MIN_CROPS), np.arange(MIN_CROPS) % SIZE[0], np.arange(MIN_CROPS) // SIZE[0], 0] += 1
    assert len(different_crops(list(crops))) == MIN_CROPS
    with pytest.raises(AdaptationError, match="almost one picture"):
        adapt(checkpoint_of(), crops, ABOUT)
