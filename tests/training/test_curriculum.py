"""The course of input sizes and of the sampler over a run."""

import numpy as np
import pytest
import torch

from reid_edge.errors import ResumeError, StoppedError
from reid_edge.osnet.checkpoint import load_checkpoint
from reid_edge.training.curriculum import TrainingInputs, pixel_opener, size_of_epoch, steps_at_size
from reid_edge.training.optimisation import ModelEma
from reid_edge.training.resolve import resolve
from reid_edge.training.run import _sampler, train
from reid_edge.training.state import load_state
from reid_edge.training.task import load_training_data
from tests.training.people import values, write_people
from tests.training.test_run import rows, same, stopping

GROWING = {
    "schedule__sizes": ["16x13", "24x16"],
    "schedule__size_milestones": [1],
    "augment__erase": 0.5,
    "run__ema": 0.9,
}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"))


def configured(people, **more):
    return resolve("scratch", {}, values(people, **more))[0]


def test_each_epoch_has_its_size(people):
    config = configured(people, schedule__sizes=["13x13", "16x13", "24x16"], schedule__size_milestones=[1, 2])
    assert [size_of_epoch(config, epoch) for epoch in range(3)] == [(13, 13), (16, 13), (24, 16)]
    assert {size_of_epoch(configured(people), epoch) for epoch in range(3)} == {(24, 16)}


def test_steps_are_counted_from_the_change_of_size(people):
    config = configured(people, schedule__sizes=["13x13", "16x13", "24x16"], schedule__size_milestones=[1, 2])
    assert [steps_at_size(config, step, 4) for step in range(14)] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert steps_at_size(configured(people), 13, 4) == 13


def test_an_average_forgets_the_smaller_images(people, tmp_path, monkeypatch):
    """Its batch-norm statistics are those of the last size."""
    weights = []
    update = ModelEma.update
    monkeypatch.setattr(ModelEma, "update", lambda ema, new: (weights.append(float(new)), update(ema, new)))
    train(configured(people, **GROWING), tmp_path / "run")
    assert [number for number, weight in enumerate(weights) if weight == pytest.approx(0.9)] == [0, 4]


def test_pixels_and_augmentation_follow_the_size(people):
    config = configured(people, **GROWING)
    images = load_training_data(config).images
    cpu = torch.device("cpu")
    inputs = TrainingInputs(config, pixel_opener(images, config, cpu, lambda _count: None), cpu, 0)
    assert inputs.source.batch(torch.arange(2)).shape == (2, 3, 16, 13)
    assert not inputs.enter(0)
    assert inputs.enter(1)
    assert not inputs.enter(2)
    pixels = inputs.source.batch(torch.arange(2))
    augmenter = inputs.augmenter((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert augmenter(pixels, torch.rand(2, augmenter.columns), pixels).shape == (2, 3, 24, 16)


def test_a_run_of_growing_images_is_evaluated_at_the_last_size(people, tmp_path):
    train(configured(people, **GROWING), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run/last.safetensors").info.size == (24, 16)
    assert [row["epoch"] for row in rows(tmp_path / "run") if row["mAP"]] == ["1", "2", "3"]
    assert (tmp_path / "run/log.txt").read_text().count("from epoch 2 on the input is 24x16") == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4, 6])
def test_stopped_before_at_and_after_the_change_of_size_it_is_the_same_to_the_last_bit(people, tmp_path, step):
    config = configured(people, **GROWING)
    train(config, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "parts", notify=stopping(step))
    assert load_state(tmp_path / "parts/state.pt").progress.step == step
    train(config, tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")


def balanced(config, epoch):
    """True if every batch of the epoch has as many images of each identity as asked for."""
    training_data = load_training_data(config)
    counts = [
        np.unique(training_data.targets[batch], return_counts=True)[1]
        for batch in _sampler(config, training_data)(epoch)
    ]
    return all((count == config.batch.instances).all() for count in counts)


def test_balanced_batches_begin_with_the_triplet_loss(people):
    config = configured(people, loss__triplet=0.5, loss__triplet_start=2, batch__instances=2)
    assert [balanced(config, epoch) for epoch in range(3)] == [False, False, True]


def test_balanced_batches_begin_when_asked_to(people):
    config = configured(
        people, loss__triplet=0.5, loss__triplet_start=2, batch__instances=2, schedule__balanced_start=1
    )
    assert [balanced(config, epoch) for epoch in range(3)] == [False, True, True]


def test_one_instance_is_plain_shuffling_with_triplet_loss(people):
    plain = configured(people)
    config = configured(people, loss__triplet=0.5, batch__instances=1)
    training_data = load_training_data(config)
    pairs = zip(_sampler(config, training_data)(1), _sampler(plain, training_data)(1), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_run_that_began_when_all_batches_were_balanced_says_how_to_go_on(people, tmp_path):
    more = {"loss__triplet": 0.5, "loss__triplet_start": 1, "batch__instances": 2}
    with pytest.raises(StoppedError):
        train(configured(people, **more, schedule__balanced_start=0), tmp_path / "run", notify=stopping(2))
    stored = torch.load(tmp_path / "run/state.pt", weights_only=True)
    del stored["config"]["schedule"]["balanced_start"]
    torch.save(stored, tmp_path / "run/state.pt")
    with pytest.raises(ResumeError, match=r"schedule\.balanced_start: was 0, is 'none'"):
        train(configured(people, **more), tmp_path / "run", resume=True)
    train(configured(people, **more, schedule__balanced_start=0), tmp_path / "run", resume=True)
