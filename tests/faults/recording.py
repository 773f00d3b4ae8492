"""What a program really does to the files of a folder: its system calls, recorded by strace.

:func:`record` runs a command and returns the writes, truncations, syncs, creations, renames and deletions in their
order, with the promises that the program made meanwhile (``Marks``).  ``powercut`` replays them.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

#: All that can change a file or a folder; one that is not modelled below is an error, so that nothing is overlooked.
_CALLS = (
    "open openat creat close dup dup2 dup3 read pread64 lseek write pwrite64 ftruncate truncate fsync fdatasync "
    "rename renameat renameat2 unlink unlinkat link linkat symlink symlinkat mkdir mkdirat rmdir "
    "writev pwritev pwritev2 fallocate copy_file_range sendfile sync_file_range mmap"
)
_HARMLESS = {"close", "dup", "dup2", "dup3", "read", "pread64", "lseek", "mkdir", "mkdirat"}

Kind = Literal["open", "write", "truncate", "sync", "link", "rename", "unlink", "mark"]


@dataclass(frozen=True)
class Operation:
    """One thing that was done.

    Attributes:
        kind: ``open`` makes the file if it may and there is none; ``sync`` may be of a file or of a folder; ``mark`` is
            a promise that the program made.
        path: File or folder of ``open``, ``link``, ``rename``, ``unlink``, and of a folder's ``sync``.
        to: New name, of ``link`` and ``rename``.
        handle: Number that ``open`` gave to the open file, of ``write``, ``truncate`` and ``sync``; -1 for none.
        creates: ``open`` makes the file if there is none.
        offset: Place of a write, -1 for the end; new length of a ``truncate``.
        data: Bytes written.
        mark: What was promised.
    """

    kind: Kind
    path: str = ""
    to: str = ""
    handle: int = -1
    creates: bool = False
    offset: int = 0
    data: bytes = b""
    mark: Any = None


class Marks:
    """Promises of the recorded program, one JSON value a line, in a file outside the folder."""

    def __init__(self, path: Path | str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, value: Any) -> None:
        """Promise: everything that was written before this must survive a power cut from now on."""
        os.write(self._descriptor, json.dumps(value).encode() + b"\n")


def need_strace() -> None:
    """Skip the test where nothing can be recorded."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: system calls cannot be recorded here")
    tried = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()[-200:]}")


def record(
    commands: Sequence[Sequence[str | Path]], *, folder: Path, marks: Path, timeout_s: float = 300
) -> list[Operation]:
    """Run commands, one after another, and return what they did to the files of a folder.

    Each may end itself by SIGKILL.  It must write from one thread at a time, and start no process that writes:
    overlapping calls are ordered by their ends.

    Raises:
        RuntimeError: A command failed.
        NotImplementedError: It changed the folder by a call that is not modelled.
    """
    handles, operations = itertools.count(), list[Operation]()
    for command in commands:
        with tempfile.NamedTemporaryFile("r", encoding="ascii", errors="replace", suffix=".strace") as trace:
            options = ["-f", "-y", "-xx", "-s", "40000000", "-e", f"trace={','.join(_CALLS.split())}", "-o", trace.name]
            ended = subprocess.run(["strace", *options, *command], timeout=timeout_s, capture_output=True, text=True)
            if ended.returncode not in (0, -signal.SIGKILL, 128 + signal.SIGKILL):
                raise RuntimeError(f"{command} ended with {ended.returncode}: {ended.stderr[-2000:]}")
            operations += _Reader(str(folder), str(marks), handles).operations(_calls(trace))
    return operations


@dataclass(frozen=True)
class _Call:
    name: str
    arguments: str
    result: int
    #: Path of the descriptor that the call returned.
    opened: str


def _calls(lines: Iterator[str]) -> Iterator[_Call]:
    """Yield calls that succeeded; one that another thread's interrupted is put together again."""
    halves: dict[str, str] = {}
    for line in lines:
        process, rest = line.split(None, 1)
        if "<unfinished ...>" in rest:
            halves[process] = rest.split("<unfinished ...>")[0]
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", rest, re.S):
            rest = halves.pop(process) + resumed[1]
        if found := re.match(r"(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+)(?:<(.*?)>)?(?:\s|$)", rest):
            result = int(found[3], 0)
            if result >= 0:
                yield _Call(found[1], found[2], result, _plain(found[4] or ""))


def _plain(text: str) -> str:
    """Undo strace's hexadecimal."""
    return _bytes(text).decode() if "\\x" in text else text


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _Open:
    """Open file: its handle, the place of the next read or write (-1: always the end)."""

    handle: int
    place: int = 0


@dataclass
class _Reader:
    """Turns the calls of one process into operations."""

    folder: str
    marks: str
    handles: Iterator[int]
    _open: dict[int, _Open] = field(default_factory=dict)

    def operations(self, calls: Iterator[_Call]) -> Iterator[Operation]:
        for call in calls:
            yield from self._of(call)

    def _of(self, call: _Call) -> Iterator[Operation]:
        if call.name in ("open", "openat", "creat"):
            yield from self._opened(call)
            return
        number, path = _descriptor(call.arguments)
        if number is None:
            yield from self._by_name(call)
        elif path == self.marks and call.name == "write":
            for line in _strings(call.arguments)[0].splitlines():
                yield Operation("mark", mark=json.loads(line))
        elif number in self._open:
            yield from self._by_descriptor(call, number, path)

    def _holds(self, path: str) -> bool:
        return path == self.folder or path.startswith(self.folder + "/")

    def _opened(self, call: _Call) -> Iterator[Operation]:
        self._open.pop(call.result, None)
        if not self._holds(call.opened):
            return
        handle = next(self.handles)
        self._open[call.result] = _Open(handle, -1 if "O_APPEND" in call.arguments else 0)
        creates = "O_CREAT" in call.arguments or call.name == "creat"
        yield Operation("open", call.opened, handle=handle, creates=creates)
        if "O_TRUNC" in call.arguments or call.name == "creat":
            yield Operation("truncate", handle=handle)

    def _by_descriptor(self, call: _Call, number: int, path: str) -> Iterator[Operation]:
        file = self._open[number]
        match call.name:
            case "close":
                del self._open[number]
            case "dup" | "dup2" | "dup3":
                self._open[call.result] = file
            case "lseek" if file.place >= 0:
                file.place = call.result
            case "read" if file.place >= 0:
                file.place += call.result
            case "write":
                data = _strings(call.arguments)[0][: call.result]
                yield Operation("write", handle=file.handle, offset=file.place, data=data)
                file.place += len(data) if file.place >= 0 else 0
            case "pwrite64":
                data = _strings(call.arguments)[0][: call.result]
                yield Operation("write", handle=file.handle, offset=int(call.arguments.rsplit(",", 1)[1]), data=data)
            case "ftruncate":
                yield Operation("truncate", handle=file.handle, offset=int(call.arguments.rsplit(",", 1)[1]))
            case "fsync" | "fdatasync":
                yield Operation("sync", path, handle=file.handle)
            case name if name not in _HARMLESS:
                raise NotImplementedError(f"{name} on {path} is not modelled: {call.arguments[:200]}")

    def _by_name(self, call: _Call) -> Iterator[Operation]:
        if call.name == "mmap":
            mapped = re.search(r"MAP_SHARED\w*, \d+<(.*?)>", call.arguments)
            path = _plain(mapped[1]) if mapped else ""
            # The index of SQLite's log is rebuilt by whoever opens the database first.
            if self._holds(path) and "PROT_WRITE" in call.arguments and not path.endswith("-shm"):
                raise NotImplementedError(f"{path} is written through a shared mapping, which is not modelled")
            return
        paths = [found.decode() for found in _strings(call.arguments)]
        if not any(self._holds(path) for path in paths):
            return
        if call.name.startswith(("rename", "link")) and all(self._holds(path) for path in paths):
            source, target = paths
            yield Operation("link" if call.name.startswith("link") else "rename", source, to=target)
        elif call.name.startswith("unlink"):
            yield Operation("unlink", paths[0])
        elif call.name not in _HARMLESS:
            raise NotImplementedError(f"{call.name} of {paths} is not modelled")


def _descriptor(arguments: str) -> tuple[int | None, str]:
    """Return the descriptor that a call begins with, and its path; (None, "") if it begins with something else."""
    found = re.match(r"(\d+)<([^>]*)>", arguments)
    return (int(found[1]), _plain(found[2])) if found else (None, "")


def _strings(arguments: str) -> list[bytes]:
    return [_bytes(text) for text in re.findall(r'"((?:\\x..)*)"', arguments)]
