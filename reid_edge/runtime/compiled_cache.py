"""Compiled models kept on disk between starts: an entry is used only if every byte is as this user wrote it.

A library may crash on a damaged compiled model instead of refusing it.  So it is given none whose checksum does not
hold, and an entry is out of its place while it is loaded: after a crash it is not found there again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from reid_edge.errors import OutputError
from reid_edge.files import PARTIAL_SUFFIX, check_owned, read_regular, write_whole

_logger = logging.getLogger(__name__)

_MAGIC = b"reid-edge compiled model 1\n"
_SUFFIX, _LOADING = ".compiled", ".loading"
_KEY = re.compile(r"[0-9a-f]{64}")
#: Files kept: a dozen models, each compiled for some batch sizes.  The ones that were not used for longest go.
MAX_ENTRIES = 96
#: More than any compiled model of a bundle takes.
MAX_BYTES = 1 << 30


def open_cache(folder: Path) -> CompiledCache | None:
    """Open a cache in a folder, and remove what is of no use there; None if this user cannot keep anything there.

    Args:
        folder: Made, for this user alone, if it is not there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owned(folder.lstat())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "not writable")
        cache = CompiledCache(folder)
        cache.tidy()
    except OSError as error:
        _logger.warning("compiled models are not kept in %s (%s): each start compiles again", folder, error.strerror)
        return None
    return cache


class CompiledCache:
    """Compiled models by key.

    Args:
        folder: It is there, and belongs to this user.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, key: str) -> bytes | None:
        """Take an entry out of its place and return the compiled model; None where there is none that can be used.

        After a good load :meth:`put_back` puts it back.

        Args:
            key: Of :func:`key_of`.
        """
        path, loading = self._path(key), self._loading(key)
        try:
            path.rename(loading)
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.warning("the compiled model %s cannot be used: %s", path, error.strerror)
            return None
        try:
            return _checked(loading, key)
        except (OSError, ValueError) as error:
            self.discard(key, getattr(error, "strerror", None) or str(error))
            return None

    def put_back(self, key: str) -> None:
        """Put an entry back that was taken."""
        loading = self._loading(key)
        with contextlib.suppress(OSError):  # another process may have put it back
            os.utime(loading)
            loading.rename(self._path(key))

    def discard(self, key: str, reason: str) -> None:
        """Throw an entry away that was taken, and log why."""
        _throw_away(self._loading(key), reason)

    def store(self, key: str, model: bytes) -> None:
        """Keep a compiled model, whole or not at all; where that fails, log it and go on without."""
        try:
            write_whole(self._path(key), _MAGIC + _digest(key, model) + model, private=True)
        except OutputError as error:
            _logger.warning("a compiled model is not kept, the next start compiles again: %s", error)

    def tidy(self) -> None:
        """Remove what was left half loaded or half written, foreign files, and the oldest entries above the limit."""
        entries = []
        for path in self._folder.iterdir():
            if path.suffix in (_LOADING, PARTIAL_SUFFIX):
                if not _in_use(path):
                    _throw_away(path, "a process ended while it loaded or wrote this")
            elif path.suffix != _SUFFIX or not _KEY.fullmatch(path.stem):
                _throw_away(path, "not a compiled model of this release")
            else:
                entries.append((path.lstat().st_mtime_ns, path))
        for _time, path in sorted(entries, reverse=True)[MAX_ENTRIES:]:
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _loading(self, key: str) -> Path:
        return self._folder / f"{key}.{os.getpid()}{_LOADING}"


def key_of(facts: Sequence[object], *contents: bytes) -> str:
    """Return the key of a compiled model, hexadecimal: a hash of all that it is made of and for.

    Args:
        facts: Library, device, options, shape; compared as Python writes them.
        contents: The files that are compiled.
    """
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    return hashlib.sha256(repr((tuple(facts), hashes)).encode()).hexdigest()


def _digest(key: str, model: bytes) -> bytes:
    return hashlib.sha256(key.encode() + model).digest()


def _checked(path: Path, key: str) -> bytes:
    """Return the compiled model in an entry's file.

    Raises:
        OSError: It cannot be read, is a link or no regular file, or somebody else may have written it.
        ValueError: Its checksum does not hold.
    """
    content = read_regular(path, max_bytes=MAX_BYTES, check=check_owned, follow_link=False)
    header = len(_MAGIC) + hashlib.sha256().digest_size
    model = content[header:]
    if content[:header] != _MAGIC + _digest(key, model):
        raise ValueError("its checksum is wrong")
    return model


def _in_use(path: Path) -> bool:
    """Return True for a file that another process loads or writes now."""
    pid = path.stem.rpartition(".")[2].partition("-")[0]
    return pid.isdigit() and int(pid) != os.getpid() and Path("/proc", pid).exists()


def _throw_away(path: Path, reason: str) -> None:
    _logger.warning("a compiled model is thrown away, and compiled again: %s: %s", path, reason)
    with contextlib.suppress(OSError):  # e.g. a folder; it is in nobody's way
        path.unlink()
