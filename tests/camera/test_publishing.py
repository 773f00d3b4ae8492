from dataclasses import replace

import numpy as np
import pytest

from reid_edge.camera import publishing as module
from reid_edge.camera.publishing import Publisher
from reid_edge.upstream.outbox import Outbox
from tests.traffic import observation


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


@pytest.fixture
def unwritable(tmp_path):
    """An outbox that refuses everything: it is closed."""
    outbox = Outbox(tmp_path / "unwritable.db")
    outbox.close()
    return outbox


def test_what_can_never_be_sent_holds_up_nothing_else(outbox):
    publisher = Publisher(outbox, "fp16")
    not_finite = replace(observation(2), feature=np.full(512, np.nan, np.float32))
    publisher.publish([observation(1), not_finite, observation(3)])
    assert outbox.depth == publisher.stats.published == 2
    assert (publisher.stats.lost, publisher.stats.unwritten) == (1, 0)


def test_what_cannot_be_written_now_is_written_later_and_first(unwritable, outbox):
    publisher = Publisher(unwritable, "fp16")
    publisher.publish([observation(1)])
    assert publisher.stats.unwritten == 1
    publisher._outbox = outbox
    publisher.publish([observation(2)])
    assert (outbox.depth, publisher.stats.unwritten, publisher.stats.lost) == (2, 0, 0)


def test_memory_is_bounded_and_what_had_to_go_is_declared_upstream(unwritable, outbox, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNWRITTEN", 3)
    publisher = Publisher(unwritable, "fp16")
    monkeypatch.setattr(unwritable, "lose", outbox.lose)
    publisher.publish([observation(track) for track in range(5)])
    assert (publisher.stats.unwritten, publisher.stats.lost) == (3, 2)
    publisher._outbox = outbox
    publisher.publish([])
    assert outbox.depth == 3
    assert [(gap.count, gap.reason) for gap in outbox.gaps()] == [(2, "lost")]
