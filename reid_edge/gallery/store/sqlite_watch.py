"""Watch over the files of an open gallery: SQLite itself does not notice that somebody else overwrote or removed them.

It keeps pages in memory, and goes on writing into a file that has no name any more.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from reid_edge.errors import StoreError
from reid_edge.files import identity

#: Bytes of the header that stay as long as a gallery's file is open (https://www.sqlite.org/fileformat.html): what it
#: is, page size, versions of reading and writing and fractions; encoding of text; application.
_FIXED = (slice(0, 24), slice(56, 60), slice(68, 72))
_HEADER_BYTES = 100


class FileWatch:
    """The files of a gallery as SQLite has opened them; to be made when it has, and closed after its connection.

    To close any descriptor of a file releases all locks that the process has on it, so this one is kept open.

    Args:
        path: The gallery's file.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sides = [path.with_name(path.name + side) for side in ("-wal", "-shm")]
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._file = identity(path)
        self._logs = [identity(side) for side in self._sides]
        self._header, self._size = self._fixed(), self._length()

    @property
    def is_gone(self) -> bool:
        """Whether there is no file at the path."""
        return identity(self._path) is None

    @property
    def is_in_place(self) -> bool:
        """Whether the file at the path is the one that was opened."""
        return identity(self._path) == self._file

    @property
    def logs_are_in_place(self) -> bool:
        """Whether SQLite's log and its index are those that were there."""
        return [identity(side) for side in self._sides] == self._logs

    def check_contents(self) -> None:
        """Compare the file's header and length with those that it had: a gallery's file never becomes shorter.

        Raises:
            StoreError: Somebody else has overwritten it.
        """
        size = self._length()
        if size < self._size:
            raise StoreError(f"the gallery's file {self._path} was cut off while it was open: nothing is stored.")
        if self._fixed() != self._header:
            raise StoreError(f"the gallery's file {self._path} was overwritten while it was open: nothing is stored.")
        self._size = size

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _fixed(self) -> list[bytes]:
        header = os.pread(self._descriptor, _HEADER_BYTES, 0)
        return [header[part] for part in _FIXED]

    def _length(self) -> int:
        return os.fstat(self._descriptor).st_size
