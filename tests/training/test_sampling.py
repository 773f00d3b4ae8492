from collections import Counter

import numpy as np
import pytest
import torch

from reid_edge.errors import DatasetError, SettingsError
from reid_edge.training.sampling import (
    Use,
    balanced_batches,
    check_balance,
    generator,
    numbers,
    rank_slice,
    shuffled_batches,
)


def listed(batches):
    return [batch.tolist() for batch in batches]


def test_shuffled_epoch_draws_each_image_at_most_once_and_drops_the_incomplete_batch():
    batches = shuffled_batches(23, 5, seed=1, epoch=0)
    drawn = [index for batch in listed(batches) for index in batch]
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(drawn)) == 20 and set(drawn) <= set(range(23))
    assert batches[0].dtype == torch.int64


def test_shuffled_epochs_leave_out_different_images():
    seen = Counter(
        index
        for epoch in range(50)
        for batch in shuffled_batches(11, 4, seed=3, epoch=epoch)
        for index in batch.tolist()
    )
    assert len(seen) == 11 and min(seen.values()) > 25  # of 50 epochs, 8/11 each: 36 expected


@pytest.mark.parametrize(
    "draw",
    [
        lambda **where: shuffled_batches(40, 8, **where),
        lambda **where: balanced_batches([index // 4 for index in range(40)], 8, 2, **where),
    ],
)
def test_epoch_depends_on_seed_and_epoch_only(draw):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = listed(draw(seed=7, epoch=2))
    torch.manual_seed(99), np.random.seed(99)
    assert listed(draw(seed=7, epoch=2)) == first
    assert listed(draw(seed=7, epoch=3)) != first
    assert listed(draw(seed=8, epoch=2)) != first
    torch.set_rng_state(before[0])


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(DatasetError, match=r"a batch takes 64 images, and there are only 63.*batch.size"):
        shuffled_batches(63, 64, seed=1, epoch=0)


def test_balanced_batches_hold_different_identities_with_as_many_images_each():
    rng = np.random.default_rng(0)
    identities = rng.permutation(np.repeat(np.arange(100, 113), rng.integers(2, 12, 13))).tolist()
    batches = balanced_batches(identities, 12, 3, seed=1, epoch=0)
    assert len(batches) == len(identities) // 12
    for batch in listed(batches):
        of_batch = [identities[index] for index in batch]
        assert sorted(Counter(of_batch).values()) == [3, 3, 3, 3]
        assert all(len(set(of_batch[start : start + 3])) == 1 for start in range(0, 12, 3))
        for start in range(0, 12, 3):
            images = batch[start : start + 3]
            assert len(set(images)) == min(3, identities.count(identities[images[0]]))


def test_identity_with_fewer_images_than_instances_shows_all_of_them():
    identities = [0, 0, 0] + [1] * 10 + [2] * 10 + [3] * 10
    own = [
        [index for index in batch if identities[index] == 0]
        for epoch in range(5)
        for batch in listed(balanced_batches(identities, 8, 4, seed=1, epoch=epoch))
    ]
    assert any(own)
    assert all(set(images) == {0, 1, 2} and len(images) == 4 for images in own if images)


def test_identities_come_up_equally_often_and_so_do_the_images_of_each():
    identities = [0] * 6 + [1] * 30 + [2] * 41 + [3] * 400
    batches = balanced_batches(identities, 6, 3, seed=1, epoch=0)
    seen = Counter(index for batch in listed(batches) for index in batch)
    of_identity = Counter(identities[index] for batch in listed(batches) for index in batch)
    assert max(of_identity.values()) - min(of_identity.values()) <= 3
    for identity in (0, 1, 3):  # nothing is left over when they are dealt out
        times = [seen[index] for index, each in enumerate(identities) if each == identity]
        assert max(times) - min(times) <= 1
    times = [seen[index] for index, each in enumerate(identities) if each == 2]
    assert max(times) - min(times) <= 2  # 39 of 41 are dealt before all are shuffled again


def test_no_identity_stands_twice_in_a_batch_even_where_rounds_meet():
    identities = [index // 4 for index in range(20)]  # 5 identities, 3 of them in a batch
    for epoch in range(20):
        for batch in listed(balanced_batches(identities, 6, 2, seed=2, epoch=epoch)):
            assert len({identities[index] for index in batch}) == 3


def test_identities_with_one_image_are_named():
    with pytest.raises(DatasetError, match=r"2 of 4 identities have one image only.*: 7, 9\. Leave them out"):
        check_balance([1, 1, 7, 3, 3, 9], 4, 2)
    with pytest.raises(DatasetError, match=r": c\.jpg, f\.jpg\."):
        check_balance([1, 1, 7, 3, 3, 9], 4, 2, names=["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"])


def test_of_many_lonely_identities_ten_are_named():
    with pytest.raises(DatasetError, match=r"50 of 50 identities.*: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …\."):
        balanced_batches(range(50), 4, 2, seed=1, epoch=0)


@pytest.mark.parametrize(("size", "instances"), [(10, 4), (4, 4), (2, 4)])
def test_batch_that_is_no_whole_number_of_identities_is_refused(size, instances):
    with pytest.raises(SettingsError, match=r"batch.size must be at least twice batch.instances"):
        check_balance([0, 0, 1, 1], size, instances)


def test_too_few_identities_are_refused():
    with pytest.raises(DatasetError, match=r"16 identities × 4 images, and there are only 3 identities.*12 or less"):
        check_balance([0, 0, 1, 1, 2, 2] * 20, 64, 4)


def test_too_few_images_under_balance_are_refused():
    with pytest.raises(DatasetError, match=r"takes 8 images, and there are only 4.*batch.size to 4 or less"):
        check_balance([0, 0, 1, 1], 8, 4)


def test_slices_of_all_processes_are_the_batch():
    batch = torch.arange(24).reshape(12, 2)
    assert torch.equal(torch.cat([rank_slice(batch, rank, 3) for rank in range(3)]), batch)
    assert torch.equal(rank_slice(batch, 0, 1), batch)


def test_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(SettingsError, match=r"multiple of the 3 processes, got 64. Set batch.size to 63"):
        rank_slice(torch.arange(64), 0, 3)


def test_numbers_are_uniform_and_a_function_of_seed_and_step():
    first = numbers(5, 1000, 300, 40)
    assert first.dtype == torch.float32 and first.shape == (300, 40)
    assert first.min() >= 0 and first.max() < 1
    assert abs(first.mean() - 0.5) < 0.01 and abs(first.var() - 1 / 12) < 0.002
    torch.manual_seed(3)
    assert torch.equal(numbers(5, 1000, 300, 40), first)
    for other in (numbers(5, 1001, 300, 40), numbers(6, 1000, 300, 40)):
        assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.04  # 12,000 pairs: σ = 0.009


def test_uses_draw_on_different_streams():
    drawn = [generator(1, use, 0).random() for use in Use]
    assert len(set(drawn)) == len(drawn)
