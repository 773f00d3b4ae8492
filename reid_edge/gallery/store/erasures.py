"""Erasures: what each keeps out from then on, for how long, and the form in which stores keep them."""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from reid_edge.gallery.entries import (
    CLOCK_TOLERANCE_US,
    LONGEST_RETENTION_HOURS,
    LONGEST_TRACKLET_US,
    Entry,
    Key,
    Record,
    Selection,
)

if TYPE_CHECKING:
    from reid_edge.gallery.store.people import Assignment

#: What begins so long after an erasure may still have been seen before it: the camera's clock may be ahead of the
#: gallery's by the tolerance, and the gallery's behind the true time by as much.
MARGIN_US = 2 * CLOCK_TOLERANCE_US

_HOUR_US = 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """A rule that keeps out what was erased.

    Attributes:
        id: Names the erasure, in every store, journal and backup.
        made_us: Time of the erasure by the gallery's clock, microseconds since 1970 UTC; 0 if not known.
        boot: The boot of the machine that erased, so that a later correction of its clock can be applied; "" if not
            known.
        selection: What is kept out; its ``until_us`` is the end of the rule.
    """

    id: str
    made_us: int
    boot: str
    selection: Selection

    @property
    def until_us(self) -> int:
        """Latest first sight of a tracklet that is kept out."""
        return self.selection.until_us or 0


def new_erasure(selection: Selection, *, now_us: int, boot: str = "") -> Erasure:
    """Return the rule of an erasure that is made now.

    Args:
        selection: What is erased.
        now_us: Time of the erasure.
        boot: The boot of the machine.
    """
    return Erasure(id=uuid.uuid4().hex, made_us=now_us, boot=boot, selection=_lasting(selection, now_us))


def _lasting(selection: Selection, now_us: int) -> Selection:
    """Return what is kept out from now on.

    A window that ends in the past is compared as it was asked for.  One that ends now, later or not at all ends
    :data:`MARGIN_US` from now.
    """
    if selection.until_us is not None and selection.until_us < now_us - CLOCK_TOLERANCE_US:
        return selection
    return replace(selection, until_us=now_us + MARGIN_US)


def covering(erasure: Erasure, newest_first_us: int | None) -> Erasure:
    """Return an erasure that also covers what it deleted: a camera's clock may have been further ahead.

    Args:
        erasure: From :func:`new_erasure`.
        newest_first_us: Latest ``first_us`` of the deleted observations; None if nothing was deleted.
    """
    return replace(erasure, selection=replace(erasure.selection, until_us=max(erasure.until_us, newest_first_us or 0)))


def deleted_now(selection: Selection, erasure: Erasure) -> Selection:
    """Return which stored observations an erasure deletes: all that it keeps out, and those of the future as well.

    Args:
        selection: What a person asked for.
        erasure: The rule of it.
    """
    return selection if selection.until_us is None else erasure.selection


def spent_us(before_us: int) -> int:
    """Return the time up to which erasures cover nothing that could still be stored.

    The retention may be lengthened at any time, up to :data:`LONGEST_RETENTION_HOURS`, and a camera may send what is
    years old: whatever the retention is now, a rule lasts until the longest one would refuse all that it covers.

    Args:
        before_us: Everything last seen before it has expired, by the present retention.
    """
    return before_us - LONGEST_TRACKLET_US - int(LONGEST_RETENTION_HOURS * _HOUR_US)


def covering_selections(erasures: Iterable[Erasure]) -> Callable[[Entry | Assignment], Iterator[Selection]]:
    """Return what yields the selections of erasures that cover an entry, or any that an assigned tracklet may have."""
    rules: dict[Key | str | None, list[Selection]] = defaultdict(list)
    for rule in (erasure.selection for erasure in erasures):
        for camera in rule.cameras or (None,):
            rules[_what_is_erased(rule, camera)].append(rule)

    def found(one: Entry | Assignment) -> Iterator[Selection]:
        of_it = (rule for what in (None, one.camera, one.tracklet) for rule in rules.get(what, ()))
        return (rule for rule in of_it if rule.covers(one))

    return found


def not_erased(records: Sequence[Record], erasures: Iterable[Erasure]) -> list[Record]:
    """Return the records that no erasure covers."""
    covering_it = covering_selections(erasures)
    return [record for record in records if next(covering_it(record.entry), None) is None]


def _what_is_erased(rule: Selection, camera: str | None) -> Key | str | None:
    """Return the tracklet of a camera that a rule is of, else the camera; None where it is of all cameras."""
    if camera is None or rule.incarnation is None or rule.track is None:
        return camera
    return camera, rule.incarnation, rule.track


def selection_json(selection: Selection) -> str:
    """Return a selection as JSON, the form in which stores keep erasures."""
    return msgspec.json.encode(selection.by_stored_name()).decode()


@functools.lru_cache(maxsize=100_000)
def json_selection(text: str) -> Selection:
    """Return the selection that a JSON text holds.

    Raises:
        ValueError: It holds none.
    """
    fields = msgspec.json.decode(text)
    if not isinstance(fields, dict):
        raise ValueError("expected a selection")
    return msgspec.convert({**fields, "incarnation": fields.get("epoch")}, Selection)


def old_erasure_id(selection: str) -> str:
    """Return the id of an erasure that a gallery of format 1 kept without one: the digest of its JSON text."""
    return hashlib.sha256(selection.encode()).hexdigest()[:32]


def erasure_fields(erasure: Erasure) -> dict[str, Any]:
    """Return an erasure as JSON keeps it, in journals and in Milvus."""
    selection = msgspec.to_builtins(erasure.selection.by_stored_name())
    return {"id": erasure.id, "made_us": erasure.made_us, "boot": erasure.boot, "selection": selection}


def fields_erasure(fields: Any) -> Erasure:
    """Return the erasure of the fields that :func:`erasure_fields` made.

    Raises:
        ValueError: These are no such fields.
    """
    try:
        text = msgspec.json.encode(fields["selection"]).decode()
        return msgspec.convert({**fields, "selection": json_selection(text)}, Erasure)
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected the fields of an erasure: {error}") from error
