"""Results of a tuning so far, on disk, so that an interrupted run goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from reid_edge.errors import OutputError, ReidEdgeError
from reid_edge.files import open_locked, write_whole

_Value = TypeVar("_Value")
_FILE = "results.json"
_LOCK = "lock"


class ResultCache:
    """Measured values by key, in a folder.

    Args:
        folder: It is there; emptied if it holds the work of another task.
        identity: What the values depend on: checkpoint, device, objective, versions.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._path = folder / _FILE
        self._identity = identity
        self._start = time.monotonic()
        found = self._read()
        self.resumed = found is not None
        self._before, self._values = found or (0.0, {})
        if not self.resumed:
            _empty(folder)
            self._write()

    def recall(self, key: str, measure: Callable[[], _Value], kind: type[_Value]) -> _Value:
        """Return the value measured before under this key, or else measure it now.

        Raises:
            OutputError: The cache cannot be written.
        """
        if key in self._values:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # damaged: measured again
                return msgspec.json.decode(self._values[key], type=kind)
        value = measure()
        self._values[key] = msgspec.Raw(msgspec.json.encode(value))
        self._write()
        return value

    @property
    def seconds(self) -> float:
        """Seconds that the task has taken so far, what was interrupted included."""
        return self._before + time.monotonic() - self._start

    @contextlib.contextmanager
    def stopped_clock(self) -> Iterator[None]:
        """Leave what happens inside the block out of :attr:`seconds`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - begin

    def _read(self) -> tuple[float, dict[str, msgspec.Raw]] | None:
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            kind = tuple[str, float, dict[str, msgspec.Raw]]
            text, _, checksum = self._path.read_bytes().rpartition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != checksum:
                return None  # a measured time with another digit could not be told
            identity, seconds, values = msgspec.json.decode(text, type=kind)
            if identity == self._identity:
                return seconds, {key: msgspec.Raw(bytes(value)) for key, value in values.items()}
        return None

    def _write(self) -> None:
        text = msgspec.json.encode((self._identity, self.seconds, self._values))
        write_whole(self._path, text + b"\n" + hashlib.sha256(text).hexdigest().encode())


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """Yield the folder beside ``out`` in which one process at a time works.

    It goes when the block ends well, or with an error that the same work would meet again; it stays when the block was
    interrupted, or the disk was full.

    Raises:
        OutputError: Another process works there, something else is there, or it cannot be made.
    """
    folder = out.resolve().with_name(f"{out.resolve().name}.tuning")
    try:
        if folder.exists() and not (folder / _LOCK).exists():
            raise OutputError(f"{folder} exists, and no tuning made it; remove it, or use another --out.")
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_locked(
            folder / _LOCK, busy=f"another reid-edge tune works in {folder}; wait for it, or use another --out."
        )
    except OSError as error:
        raise OutputError(f"cannot work in {folder}: {error.strerror}. Use another --out.") from error
    with lock:
        try:
            yield folder
        except OutputError:
            raise
        except ReidEdgeError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
