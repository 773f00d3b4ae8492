from dataclasses import replace

import numpy as np
import pytest

from reid_edge.camera import publishing as module
from reid_edge.camera.publishing import Publisher, wanted_galleries
from reid_edge.camera.settings import parse_settings
from reid_edge.errors import SettingsError
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
