"""The chain of an audit: the hash of each line covers the line and the hash of the line before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

#: Stands for the hash before the first line.
START = "0" * 64
#: Action of a line that holds something else than was written.
UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One line of the audit.

    Attributes:
        number: Number of the line, ascending; the store gives it.
        at_us: Time of the action.
        user: Operating system user who asked.
        action: ``search``, ``erase``, ``expire``, ``accept-model``, ``retention`` …
        purpose: Reason in the user's words; "" where none is asked for.
        detail: Values that JSON can hold; never a feature.
        hash: sha256 of this line and of the hash before it, 64 hexadecimal digits; the store gives it.
    """

    number: int = 0
    at_us: int
    user: str
    action: str
    purpose: str
    detail: dict[str, Any]
    hash: str = field(default="", compare=False)


def line_hash(previous: str, entry: AuditEntry) -> str:
    """Return the hash of a line.

    It is the sha256 of these texts in UTF-8, each as a netstring (its length in bytes, a colon, the bytes, a comma):
    the hash before it, number, time, user, action, purpose, and the detail as JSON with sorted keys and no spaces.

    Args:
        previous: Hash of the line before it; :data:`START` for the first.
        entry: The line, with its number.
    """
    detail = json.dumps(entry.detail, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256()
    for text in (previous, str(entry.number), str(entry.at_us), entry.user, entry.action, entry.purpose, detail):
        data = text.encode()
        digest.update(b"%d:%b," % (len(data), data))
    return digest.hexdigest()


def line_of(fields: Mapping[str, Any]) -> AuditEntry:
    """Return the line that a store holds; one that nobody wrote so is :data:`UNREADABLE`, without a hash.

    So it hides no other line, and no check takes it for whole.

    Args:
        fields: Those of :class:`AuditEntry`; the detail may be the text of its JSON.
    """
    try:
        detail = fields["detail"]
        detail = json.loads(detail) if isinstance(detail, str) else detail
        return msgspec.convert({**fields, "detail": detail}, AuditEntry)
    except (ValueError, KeyError, RecursionError):  # msgspec's ValidationError is a ValueError
        number = fields.get("number")
        return AuditEntry(
            number=number if isinstance(number, int) else 0, at_us=0, user="", action=UNREADABLE, purpose="", detail={}
        )


def chained(last: tuple[int, str] | None, entry: AuditEntry) -> AuditEntry:
    """Return a line with the number and the hash that follow the last line's.

    Args:
        last: Number and hash of the last line; None if there is none.
        entry: The line to add.
    """
    number, previous = last or (0, START)
    entry = replace(entry, number=number + 1)
    return replace(entry, hash=line_hash(previous, entry))


def counted(note: AuditEntry, observations: int, gaps: int) -> AuditEntry:
    """Return the line of a deletion on time with the numbers of what it deleted."""
    return replace(note, detail={**note.detail, "observations": observations, "gaps": gaps})


def chained_all(entries: Iterable[AuditEntry], *, at_us: int) -> list[AuditEntry]:
    """Return the lines of an audit that had no hashes with theirs, and a last line that says so.

    Args:
        entries: The lines, oldest first; their numbers stay.
        at_us: Time of the change.
    """
    lines: list[AuditEntry] = []
    previous = START
    for entry in entries:
        previous = line_hash(previous, entry)
        lines.append(replace(entry, hash=previous))
    if not lines:
        return []
    said = AuditEntry(
        at_us=at_us, user="reid-edge", action="chained", purpose="", detail={"lines": len(lines), "format": 2}
    )
    return [*lines, chained((lines[-1].number, previous), said)]


@dataclass(frozen=True)
class ChainReport:
    """What a check of an audit found.

    Attributes:
        lines: Number of lines.
        head: Hash of the last line, to be kept elsewhere; :data:`START` if there is none.
        faults: What is wrong, in words; empty if nothing is.
    """

    lines: int
    head: str
    faults: tuple[str, ...]


def check_chain(entries: Iterable[AuditEntry], *, expect: str | None = None) -> ChainReport:
    """Check that no line of an audit was altered, removed, moved or put in between.

    Args:
        entries: All lines, in the order of their numbers.
        expect: Hash that an earlier check gave as the head; it must still be the hash of a line.
    """
    faults: list[str] = []
    number, head, lines, met = 0, START, 0, expect in (None, START)
    for entry in entries:
        lines += 1
        if entry.number <= number:
            faults.append(f"line {entry.number} follows line {number}: a line was put in between or moved")
        if not _follows(head, entry):
            faults.append(
                f"line {entry.number} does not follow from line {number}: it was altered, or lines between them were "
                "removed, moved or put in"
            )
        number, head = entry.number, entry.hash
        met = met or head == expect
    if not met:
        faults.append(
            f"no line has the expected hash {expect}: lines at the end were removed, the audit was written anew, or a "
            "backup from before that line was restored (then the audit has a line 'restore')"
        )
    return ChainReport(lines, head, tuple(faults))


def _follows(head: str, entry: AuditEntry) -> bool:
    try:
        return entry.hash == line_hash(head, entry)
    except (UnicodeEncodeError, RecursionError):  # no line that was written is such
        return False
