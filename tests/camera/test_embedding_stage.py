"""From crops to features: which model embeds which crop, and that no tracklet mixes two."""

import math
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from reid_edge.camera import embedding_stage as module
from reid_edge.camera.crop_queue import CropQueue, QueuedCrop
from reid_edge.camera.embedding_stage import EmbeddingStage
from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import CropDetails, Tracklets, TrackletSettings


class Model:
    """An extractor whose features tell which model made them."""

    def __init__(self, number: int) -> None:
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(model_hash=f"{number}" * 64))
        self.feature = np.eye(4, dtype=np.float32)[number]
        self.batches: list[int] = []

    def __call__(self, crops):
        self.batches.append(len(crops))
        return np.tile(self.feature, (len(crops), 1))


class Published:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.observations = []

    def publish(self, observations) -> None:
        self.observations += observations

    def flush(self) -> None:
        pass


def crop(track: int, model: Model, second: float = 0.0) -> QueuedCrop:
    details = CropDetails(track, round(second * 1e6), (0, 0, 1, 1), 1.0, 1.0)
    return QueuedCrop(np.zeros((1, 1, 3), np.uint8), details, time.monotonic(), model)


@pytest.fixture
def old():
    return Model(0)


@pytest.fixture
def new():
    return Model(1)


def stage_of(model: Model) -> SimpleNamespace:
    """A stage that starts with this model; ``queue`` and ``published`` beside it."""
    queue, published = CropQueue(limit=100, drop_oldest=False, budget_s=0.0), Published()
    settings = TrackletSettings(early_s=math.inf, split_cosine=-1)
    tracklets = Tracklets(settings, model_hash=model.bundle.manifest.model_hash)
    embedding = EmbeddingStage(queue, model, published, tracklets, max_batch=8, max_latency_s=1.0)
    return SimpleNamespace(embedding=embedding, queue=queue, published=published)


@pytest.fixture
def stage(old):
    return stage_of(old)


def of_one_model(observation) -> bool:
    return observation.feature.tolist() == np.eye(4)[int(observation.model_hash[0])].tolist()


def test_a_crop_is_embedded_by_the_model_that_it_was_cut_for(stage, old, new):
    stage.queue.put([crop(1, old), crop(2, old)])
    stage.embedding.replace(new)
    assert stage.embedding.extractor is new
    stage.queue.put([crop(1, new, 1)], [EndedTrack(1, 1_000_000)])
    stage.queue.finish()
    stage.embedding.run()
    assert (old.batches, new.batches) == ([2], [1])
    found = stage.published.observations
    assert sorted((seen.track, seen.model_hash[0], seen.crops) for seen in found) == [
        (1, "0", 1),
        (2, "0", 1),
        (3, "1", 1),
    ]
    assert all(of_one_model(seen) and seen.final for seen in found)


def test_a_tracklet_that_is_half_embedded_is_published_as_it_is_and_begins_anew(stage, old, new):
    stage.queue.put([crop(1, old), crop(1, old, 1), crop(1, new, 2), crop(1, new, 3), crop(1, new, 4)])
    stage.queue.finish()
    stage.embedding.run()
    first, second = stage.published.observations
    assert (first.model_hash[0], first.crops, first.last_us) == ("0", 2, 1_000_000)
    assert (second.model_hash[0], second.crops, second.first_us) == ("1", 3, 2_000_000)
    assert first.track != second.track and of_one_model(first) and of_one_model(second)


def test_crops_of_two_models_may_even_alternate(stage, old, new):
    stage.queue.put([crop(1, (old, new)[second % 2], second) for second in range(6)])
    stage.queue.finish()
    stage.embedding.run()
    assert len(stage.published.observations) == 6
    assert all(of_one_model(seen) for seen in stage.published.observations)


def test_when_nothing_waits_the_new_model_is_taken_up_at_once_and_the_old_one_let_go(stage, old, new, monkeypatch):
    stage.queue.put([crop(1, old)])
    stage.embedding.replace(new)
    works = iter([stage.queue.take(8, 0.0), stage.queue.take(8, 0.0), None])
    monkeypatch.setattr(stage.queue, "take", lambda *_: next(works))
    stage.embedding.run()
    assert [(seen.model_hash[0], seen.final) for seen in stage.published.observations] == [("0", True)]
    assert stage.embedding._current is new


def test_memory_is_given_back_when_no_crop_holds_the_old_model_any_more(new, monkeypatch):
    stage, old_was_gone = stage_of(Model(0)), []
    old = weakref.ref(stage.embedding.extractor)
    monkeypatch.setattr(module, "give_back_memory", lambda: old_was_gone.append(old() is None))
    stage.queue.put([crop(1, old()), crop(1, new, 1)])
    stage.embedding.replace(new)
    stage.queue.finish()
    stage.embedding.run()
    assert old_was_gone == [True]
