"""What delivery logs, and how often."""

import logging
import re

import pytest

from reid_edge.errors import OutboxError, TransportError
from reid_edge.upstream.delivery.log import LONGEST_SHOWN, DeliveryLog, DeliveryStats, shown


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("reid_edge.upstream.delivery.log.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def log(clock):
    return DeliveryLog(logging.getLogger("reid_edge.test"), DeliveryStats(), clock=lambda: clock[0])


def refusal_warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]


def test_a_refusal_that_comes_back_after_all_was_taken_is_logged_again(caplog, log):
    log.refusals(["no room"], 3)
    log.refusals(["no room"], 2)
    log.refusals([], 0)
    log.refusals(["no room"], 1)
    assert len(refusal_warnings(caplog)) == 2
    log.refusals(["kind " + "x" * number for number in range(1000)], 1)
    assert len(refusal_warnings(caplog)) < 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zu viele Bilder: ≥ 3", "zu viele Bilder: ≥ 3"),
        ("one\ntwo\r\n ERROR forged", "one two ERROR forged"),
        ("\x1b[2J\x00gone", "\\x1b[2J\\x00gone"),
        ("right \u202eto left", "right \\u202eto left"),
    ],
)
def test_foreign_text_is_one_line_in_which_every_character_can_be_seen(text, expected):
    assert shown(text) == expected


def test_foreign_text_of_megabytes_is_shortened():
    assert len(shown("x" * 5_000_000)) == LONGEST_SHOWN
    assert shown("\n" * 5_000_000) == "…"


def test_a_problem_that_lasts_is_logged_once_a_minute(caplog, log, clock):
    for second in range(180):
        clock[0] = 1000.0 + second
        log.problem(TransportError(f"no network on port {second}"))
        log.problem(OutboxError("disk full"))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 6
    assert len([text for text in said if "disk full" in text]) == 3


def test_problems_of_ever_new_kinds_cannot_flood_the_log(caplog, log, clock):
    for number in range(1000):
        log.problem(TransportError("x" * number))
    assert len(caplog.records) <= 16
    clock[0] += 61
    log.problem(TransportError("new"))
    assert len(caplog.records) <= 17


def test_an_unexpected_error_is_counted_shown_and_logged_once_a_minute(caplog, log, clock):
    for _ in range(10):
        log.bug(RuntimeError("oh\nno"), 5)
    assert log._stats.internal_errors == 10
    assert log._stats.internal_error(60) == "RuntimeError: oh no"
    assert len(caplog.records) == 1
    clock[0] += 61
    assert log._stats.internal_error(60) == ""
    log.bug(RuntimeError("oh no"), 5)
    assert len(caplog.records) == 2
    assert re.search("11 since the start", caplog.text)


def test_a_foreign_gallery_is_named_once_and_counted(caplog, log):
    for _ in range(3):
        log.foreign("second", ("gallery",))
    log.foreign("", ("gallery", "b"))
    assert log._stats.foreign_acks == 4
    assert log._stats.foreign_galleries == {"second": 3, "without a name": 1}
    assert len(caplog.records) == 2
    assert "upstream.galleries" in caplog.text
    for number in range(1000):
        log.foreign(f"g{number}", ("gallery",))
    assert len(log._stats.foreign_galleries) == len(caplog.records) == 16
