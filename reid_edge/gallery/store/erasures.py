"""Erasures stay in force: what they cover must not come back when a camera sends it again, or for the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from reid_edge.gallery.records import LONGEST_TRACKLET_US, Record, Selection


def standing(selection: Selection, newest_first_us: int | None, now_us: int) -> Selection:
    """What an erasure keeps out from now on: no tracklet that begins later than it.

    Args:
        selection: What was erased.
        newest_first_us: Latest ``first_us`` of what was deleted; a camera's clock may be ahead.
        now_us: Time of the erasure.
    """
    until = max(now_us, newest_first_us or 0)
    return replace(selection, until_us=until if selection.until_us is None else min(until, selection.until_us))


def outlived_us(before_us: int) -> int:
    """Erasures up to this time cover nothing that is young enough to be stored, once all before ``before_us`` goes."""
    return before_us - LONGEST_TRACKLET_US


def allowed(records: Sequence[Record], erasures: Iterable[Selection]) -> list[Record]:
    """The records that no erasure covers."""
    rules = tuple(erasures)
    if not rules:
        return list(records)
    return [record for record in records if not any(rule.covers(record.entry) for rule in rules)]
