"""What lies beside a gallery's SQLite file: the journal of its erasures, and the mark of its commits.

Both tell what the file itself cannot after it was damaged, or replaced by an older copy.  The journal holds every
erasure that is in force, so that an older copy does not bring erased observations back.  The mark holds how many
commits the file has had: SQLite takes a damaged write-ahead log up to the last commit that is sound, and says nothing
of those behind it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_edge.checked_lines import checked_line, text_of_line
from reid_edge.errors import OutputError
from reid_edge.files import sync_folder, write_whole
from reid_edge.gallery.store.erasures import Erasure, erasure_fields, fields_erasure
from reid_edge.wording import counted

log = logging.getLogger(__name__)

#: As far apart as the blocks of disks, so that the loss of one block leaves the other slot.
_SLOT_BYTES = 4096


def journal_path(path: Path) -> Path:
    """Return the path of the journal of a gallery's erasures."""
    return path.with_name(f"{path.name}.erasures")


def mark_path(path: Path) -> Path:
    """Return the path of the mark of a gallery's commits."""
    return path.with_name(f"{path.name}.mark")


class ErasureJournal:
    """A file with a line for each erasure: its checksum and its fields as JSON.

    Args:
        path: Path of the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, erasures: Iterable[Erasure]) -> None:
        """Add erasures; they are on disk when this returns.

        Raises:
            OSError: They cannot be written.
        """
        new = not self._path.exists()
        with os.fdopen(
            _opened(self._path, os.O_WRONLY | os.O_APPEND), "ab"
        ) as file:  # which writes all of it, or raises
            # A line that a power cut left unfinished must not swallow the next one.
            file.write(b"\n" + b"".join(map(_line, erasures)))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self._path.parent)

    def read(self) -> list[Erasure]:
        """Return the erasures; a damaged line is left out and logged.

        Raises:
            OSError: It cannot be read.
        """
        return read_journal(self._path) if self._path.exists() else []

    def keep(self, wanted: Callable[[Erasure], bool]) -> None:
        """Keep some erasures, and drop the others.

        Raises:
            OSError: It cannot be read.
        """
        if not self._path.exists():
            return
        kept = b"".join(_line(erasure) for erasure in self.read() if wanted(erasure))
        with contextlib.suppress(OutputError):  # e.g. a full disk: it is only longer than it need be
            write_whole(self._path, kept, private=True)


def read_journal(path: Path) -> list[Erasure]:
    """Return the erasures of a journal, each once; a damaged line is left out and logged.

    Raises:
        OSError: It cannot be read.
    """
    held: dict[str, Erasure] = {}
    damaged = 0
    for line in path.read_bytes().splitlines():
        if not line.strip():
            continue
        erasure = _erasure(line)
        damaged += erasure is None
        if erasure is not None and (erasure.id not in held or held[erasure.id].until_us < erasure.until_us):
            held[erasure.id] = erasure
    if damaged:
        log.warning("%s of the journal of erasures %s left out.", counted(damaged, "damaged line"), path)
    return list(held.values())


def journal_text(erasures: Iterable[Erasure]) -> str:
    """Return erasures as a journal holds them."""
    return b"".join(map(_line, erasures)).decode()


def _line(erasure: Erasure) -> bytes:
    return checked_line(json.dumps(erasure_fields(erasure)))


def _erasure(line: bytes) -> Erasure | None:
    text = text_of_line(line)
    try:
        return None if text is None else fields_erasure(json.loads(text))
    except ValueError:
        return None


@dataclass(frozen=True)
class Mark:
    """How far a gallery's file had come.

    Attributes:
        gallery: Names the file's life.
        commits: Number of its commits.
    """

    gallery: str
    commits: int


class MarkFile:
    """The file of a gallery's mark: two slots, each with a checksum, written in turn.

    Args:
        path: Path of the mark.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failing = False

    def read(self) -> Mark | None:
        """Return the newest intact mark; None if there is none."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return None
        slots = [_unpacked(content[start : start + _SLOT_BYTES]) for start in (0, _SLOT_BYTES)]
        return max((mark for mark in slots if mark is not None), key=lambda mark: mark.commits, default=None)

    def write(self, mark: Mark) -> None:
        """Write a mark and wait for the disk; a failure is logged, since the commit itself is on disk."""
        try:
            descriptor = _opened(self._path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, _packed(mark), mark.commits % 2 * _SLOT_BYTES)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("the mark %s cannot be written: %s", self._path, error.strerror or error)
            self._failing = True

    def start(self, mark: Mark) -> None:
        """Begin anew with a mark: what both slots held is gone."""
        self._path.unlink(missing_ok=True)
        self.write(mark)


def _opened(path: Path, flags: int) -> int:
    """Open a file beside a gallery; one that root makes is the gallery's owner's, whose process has to write it."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    gallery = path.with_suffix("")
    if os.geteuid() == 0 and gallery.exists():
        owner = gallery.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _packed(mark: Mark) -> bytes:
    return checked_line(json.dumps([mark.gallery, mark.commits])).ljust(_SLOT_BYTES)


def _unpacked(slot: bytes) -> Mark | None:
    text = text_of_line(slot)
    try:
        if text is None:
            return None
        gallery, commits = _pair(json.loads(text))
        return Mark(gallery, commits)
    except ValueError:
        return None


def _pair(value: Any) -> tuple[str, int]:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str) or not isinstance(value[1], int):
        raise ValueError("expected a name and a number")
    return value[0], value[1]
