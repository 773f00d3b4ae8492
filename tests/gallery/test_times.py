"""Times and durations as people write and read them."""

import time

import pytest

from reid_edge.errors import UsageError
from reid_edge.gallery.times import duration_text, parse_time, time_text
from tests.gallery.stores import HOUR, NOON, SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOON),
        ("90s", NOON - 90 * SECOND),
        ("30m", NOON - 30 * 60 * SECOND),
        ("2h", NOON - 2 * HOUR),
        ("1.5d", NOON - 36 * HOUR),
        (" 1w ", NOON - 7 * 24 * HOUR),
        ("2026-01-01T12:00Z", NOON),
        ("2026-01-01T13:00:00.250+01:00", NOON + SECOND // 4),
        ("2026-01-01 06:30-05:30", NOON),
        ("2026-01-01T14:00", NOON),
        ("2026-01-01", NOON - 14 * HOUR),
    ],
)
def test_times_as_people_write_them(monkeypatch, text, expected):
    monkeypatch.setenv("TZ", "EET-2")
    time.tzset()
    try:
        assert parse_time(text, now_us=NOON) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "2 hours", "-2h", "2026-13-01", "12:00", "99999-01-01", "h"])
def test_what_is_no_time_is_answered_with_what_is(text):
    with pytest.raises(UsageError, match="2h or 3d"):
        parse_time(text, now_us=NOON)


def test_times_as_people_read_them(monkeypatch):
    monkeypatch.setenv("TZ", "EET-2")
    time.tzset()
    try:
        assert time_text(NOON) == "2026-01-01 14:00:00+02:00"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert time_text(NOON + 999_999, utc=True) == "2026-01-01 12:00:00+00:00"
    assert time_text(None) == "–"


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [(72 * HOUR, "72 hours"), (HOUR * 3 // 2, "1.5 hours"), (90 * SECOND, "1.5 minutes"), (1500, "0 s"), (-103, "0 s")],
)
def test_durations_are_for_people(duration_us, text):
    assert duration_text(duration_us) == text
