"""The mark of an outbox: how far its file had come, kept outside the file and its write-ahead log.

SQLite takes a damaged log up to the last commit that is sound, and says nothing of those behind it; a file may also be
removed, or replaced by an older copy.  So the mark is written after each commit, before ``put`` returns: what the file
lacks of it when it is opened is declared as lost.

The mark's file has two slots, each with a checksum.  The slot that was last synced stays as it is until the other one
has been synced, so that a power cut during a write leaves one of them.  A mark may therefore be older than the file,
which means nothing; it is newer only if the file has lost something.  Each slot is there twice, in blocks that are not
beside one another: if one is damaged, with the outbox at the same time, no older mark has to do.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reid_edge.checked_lines import checked_line, text_of_line
from reid_edge.files import identity, sync_folder
from reid_edge.upstream.outbox.records import State, whole

#: As far apart as the blocks of disks, so that the loss of one block leaves the other slot.
_SLOT_BYTES = 4096
_SLOTS = 2
_COPIES = 2
_FILE_BYTES = _SLOT_BYTES * _SLOTS * _COPIES
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mark:
    """How far an outbox's file had come.

    Attributes:
        incarnation: Names the file.
        next_seq: Sequence number of the next row.
        given: Observations that had been put into the file, or declared in it.
        rows: Rows that waited.
        crc_sum: Sum of their checksums.
        in_gaps: Observations that were counted by gaps of which the gallery did not know yet.
        checked_from: As in the state.
        destination: Where the rows were to go.
    """

    incarnation: str
    next_seq: int
    given: int
    rows: int
    crc_sum: int
    in_gaps: int
    checked_from: int = 0
    destination: str = ""

    @classmethod
    def of(cls, state: State) -> Mark:
        """Return the mark of a state."""
        return cls(**{each.name: getattr(state, each.name) for each in fields(cls)})

    @property
    def undelivered(self) -> int:
        """Number of observations of which the gallery did not know yet."""
        return self.rows + self.in_gaps


class MarkFile:
    """The file of an outbox's mark; a failure to write it is logged, and made good at the next write.

    Args:
        path: The outbox; the mark lies beside it, as ``NAME.mark``.

    Attributes:
        mark: The last mark read or written; None if there is none.
    """

    mark: Mark | None = None

    def __init__(self, path: Path) -> None:
        self._path = mark_path(path)
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._turn = 0
        self._synced_slot = 0
        self._failing = False

    def open(self) -> None:
        """Open the file, and read its newest intact mark if none is known; it is made if it is not there.

        Raises:
            OSError: It cannot be opened or made.
        """
        self.close()
        self._descriptor = os.open(self._path, _FLAGS, 0o600)
        os.fchmod(self._descriptor, 0o600)
        found = os.fstat(self._descriptor)
        self._identity = (found.st_dev, found.st_ino)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self._path} is not a regular file")
        if not found.st_size:  # its space is taken now, so that a full disk does not matter later
            os.pwrite(self._descriptor, b" " * _FILE_BYTES, 0)
            os.fsync(self._descriptor)
            sync_folder(self._path.parent)
        content = os.pread(self._descriptor, _FILE_BYTES, 0)
        blocks = [_unpacked(content[at : at + _SLOT_BYTES]) for at in range(0, len(content), _SLOT_BYTES)]
        intact = [(turn, block % _SLOTS, mark) for block, (turn, mark) in enumerate(blocks) if mark is not None]
        if intact:
            turn, self._synced_slot, mark = max(intact, key=lambda each: each[0])
            self._turn, self.mark = max(self._turn, turn), self.mark or mark
        elif content.strip(b" "):
            _LOG.warning("the mark %s is damaged: what the outbox may have lost cannot be told.", self._path)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def write(self, mark: Mark, *, sync: bool) -> None:
        """Write a mark, if it is not the last one.

        Args:
            mark: The mark.
            sync: Wait for the disk.
        """
        if mark == self.mark and not self._failing:
            return
        self.mark = mark
        try:
            self._write(mark, sync=sync)
        except OSError as error:
            if not self._failing:
                _LOG.warning("the mark %s cannot be written: %s", self._path, error.strerror or error)
            self._failing = True
        else:
            self._failing = False

    def _write(self, mark: Mark, *, sync: bool) -> None:
        if self._descriptor is None or self._identity != identity(self._path):  # removed, perhaps with its folder
            self.open()
        assert self._descriptor is not None
        self._turn += 1
        slot = 1 - self._synced_slot
        for copy in range(_COPIES):
            os.pwrite(self._descriptor, _packed(self._turn, mark), (copy * _SLOTS + slot) * _SLOT_BYTES)
        if sync:
            os.fdatasync(self._descriptor)
            self._synced_slot = slot


def mark_path(path: Path) -> Path:
    """Return the path of an outbox's mark."""
    return path.with_name(f"{path.name}.mark")


def _packed(turn: int, mark: Mark) -> bytes:
    return checked_line(json.dumps({"turn": turn, **asdict(mark)})).ljust(_SLOT_BYTES)


def _unpacked(slot: bytes) -> tuple[int, Mark | None]:
    """Return the turn and the mark of a slot; None if it is not as it was written."""
    text = text_of_line(slot)
    if text is None:
        return 0, None
    with suppress(ValueError, TypeError, LookupError):
        known = json.loads(text)
        mark = Mark(**{each.name: known[each.name] for each in fields(Mark) if each.name in known})
        counts = (mark.next_seq, mark.given, mark.rows, mark.crc_sum, mark.in_gaps, mark.checked_from)
        if all(map(whole, (known["turn"], *counts))):
            return known["turn"], mark
    return 0, None
