import logging
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.camera import publishing as module
from reid_edge.camera.publishing import COMMITS_A_CALL, RETRY_S, ROWS_A_COMMIT, Publisher, wanted_galleries
from reid_edge.camera.settings import parse_settings
from reid_edge.errors import OutboxError, SettingsError, StoreError
from reid_edge.upstream.message import decode_observation
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


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_what_can_never_be_sent_is_logged_once_a_minute(outbox, caplog):
    clock = Clock()
    publisher = Publisher(outbox, "fp16", clock=clock)
    for second in range(120):
        clock.now_s = 1000.0 + second
        publisher.publish([replace(observation(2), feature=np.full(512, np.nan, np.float32))])
    assert (publisher.stats.lost, outbox.depth) == (120, 0)
    assert len(caplog.records) == 2


def test_what_cannot_be_written_now_is_written_later_and_first(unwritable, outbox):
    clock = Clock()
    publisher = Publisher(unwritable, "fp16", clock=clock)
    publisher.publish([observation(1)])
    assert publisher.stats.unwritten == 1
    assert "closed" in publisher.stats.error
    publisher._outbox = outbox
    publisher.publish([observation(2)])
    assert (outbox.depth, publisher.stats.unwritten, publisher.stats.unwritten_since_s) == (0, 2, 1000.0)
    clock.now_s += RETRY_S
    publisher.publish([observation(3)])
    assert (outbox.depth, publisher.stats.unwritten, publisher.stats.lost) == (3, 0, 0)
    assert [decode_observation(payload).track for _, payload in outbox.pending(0, 9)] == [1, 2, 3]
    assert (publisher.stats.error, publisher.stats.unwritten_since_s) == ("", None)


def test_the_log_says_that_writing_works_again_only_where_it_said_that_it_did_not(unwritable, outbox, caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    publisher = Publisher(outbox, "fp16", clock=clock)
    for _ in range(2):  # two short outages within a minute, of which one line tells
        publisher._outbox = unwritable
        publisher.publish([observation(1)])
        clock.now_s += RETRY_S
        publisher._outbox = outbox
        publisher.publish([])
    assert outbox.depth == 2
    said = [record.getMessage().partition(",")[0] for record in caplog.records if "outbox" in record.getMessage()]
    assert said == ["the outbox cannot be written", "the outbox can be written again"]


@pytest.mark.parametrize(("when_full", "left"), [("drop-oldest", [2, 3, 4]), ("refuse-newest", [0, 1, 2])])
def test_memory_is_bounded_and_what_had_to_go_is_declared_upstream(unwritable, outbox, monkeypatch, when_full, left):
    monkeypatch.setattr(module, "MAX_UNWRITTEN", 3)
    publisher = Publisher(unwritable, "fp16", when_full=when_full)
    monkeypatch.setattr(unwritable, "lose", outbox.lose)
    publisher.publish([observation(track) for track in range(5)])
    assert (publisher.stats.unwritten, publisher.stats.lost, publisher.lost_recently()) == (3, 2, 2)
    publisher._outbox = outbox
    publisher.flush()
    assert [decode_observation(payload).track for _, payload in outbox.pending(0, 9)] == left
    assert [(gap.count, gap.reason) for gap in outbox.gaps()] == [(2, "lost")]


def test_what_cannot_be_written_at_the_end_is_lost_and_said_so(unwritable, outbox, monkeypatch, caplog):
    monkeypatch.setattr(unwritable, "lose", outbox.lose)
    publisher = Publisher(unwritable, "fp16")
    publisher.publish([observation(1)])
    publisher.flush()
    assert (publisher.stats.unwritten, publisher.stats.lost) == (0, 1)
    assert "1 observation lost" in caplog.text
    outbox.expire()
    assert [gap.count for gap in outbox.gaps()] == [1]


class CountingOutbox:
    """Refuses everything as a full disk does, and counts what it was given."""

    def __init__(self, outbox):
        self._outbox, self.is_full, self.attempts, self.largest = outbox, True, 0, 0

    def put_encoded(self, payloads):
        self.attempts += 1
        self.largest = max(self.largest, len(payloads))
        if self.is_full:
            raise OutboxError("disk full, says the test")
        self._outbox.put_encoded(payloads)

    def lose(self, count):
        self._outbox.lose(count)


def test_publishing_does_not_cost_more_the_more_observations_wait(outbox, monkeypatch):
    encoded = []
    monkeypatch.setattr(module, "encode_observation", lambda seen, _: encoded.append(seen) or b"x")
    clock, counting = Clock(), CountingOutbox(outbox)
    publisher = Publisher(counting, "fp16", clock=clock)
    some = [observation(track) for track in range(10)]
    for _ in range(1000):
        publisher.publish(some)
        clock.now_s += 0.01
    assert publisher.stats.unwritten == len(encoded) == 10_000  # each was encoded once
    assert counting.attempts <= 11
    assert counting.largest <= ROWS_A_COMMIT
    counting.is_full = False
    clock.now_s += RETRY_S
    publisher.publish([])
    assert outbox.depth == COMMITS_A_CALL * ROWS_A_COMMIT
    while publisher.stats.unwritten:
        publisher.publish([])
    assert outbox.depth == 10_000


def settings(uri: str, *galleries: str):
    upstream = {"uri": uri, **({"galleries": list(galleries)} if galleries else {})}
    return parse_settings({"source": {"uri": "a.mp4"}, "engine": {"bundle": "b"}, "upstream": upstream})


@pytest.mark.parametrize(
    ("uri", "galleries", "wanted"),
    [
        ("mqtts://broker", (), ("gallery",)),
        ("mqtts://broker", ("north", "south"), ("north", "south")),
        ("https://gallery", (), ()),
        ("https://gallery", ("north",), ("north",)),
        ("sqlite:g.db", ("north",), ()),
    ],
)
def test_whose_acknowledgement_is_needed(uri, galleries, wanted):
    assert wanted_galleries(settings(uri, *galleries)) == wanted


@pytest.mark.parametrize("uri", ["https://gallery", "sqlite:g.db", "postgresql://u@localhost/g"])
def test_several_galleries_need_a_broker(uri):
    with pytest.raises(SettingsError, match="behind a broker"):
        wanted_galleries(settings(uri, "north", "south"))


@pytest.mark.parametrize("galleries", [[], ["a b"], ["x"] * 9])
def test_names_of_galleries_are_checked(galleries):
    tables = {"source": {"uri": "a.mp4"}, "engine": {"bundle": "b"}, "upstream": {"galleries": galleries}}
    with pytest.raises(SettingsError, match="galleries"):
        parse_settings(tables)


def test_a_gallery_in_this_process_that_cannot_be_begun_is_left_closed(tmp_path, monkeypatch):
    def failing(_store):
        raise StoreError("not now")

    closed = []
    monkeypatch.setattr("reid_edge.gallery.collector.Collector", failing)
    monkeypatch.setattr("reid_edge.gallery.store.sqlite.SqliteStore.close", lambda store: closed.append(store))
    gallery = module._Gallery(f"sqlite:{tmp_path / 'gallery.db'}")
    for attempt in range(1, 4):
        with pytest.raises(StoreError, match="not now"):
            gallery.open()
        assert len(closed) == attempt
    gallery.close()
    assert len(closed) == 3
