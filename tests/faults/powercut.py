"""A power cut at any moment of a recorded run: what may be on the disk afterwards.

The disk keeps what was synced.  Of what came after, any part may be there: nothing, everything, the beginning, any
selection of the writes, each whole or torn between sectors, and any earlier content of each sector; likewise of new
names, renames and deletions, until the folder was synced.  That is less than journaling file systems promise (with
them, names are as old as one another), and nothing that a disk which keeps to its flushes may not do.

    operations = record([command], folder=folder, marks=marks)
    for state, wrong in tried(operations, violations, random.Random(seed), cuts=100, folder=tmp_path):
        assert not wrong, (seed, state)
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tests.faults.recording import Operation

SECTOR = 512
Variant = Literal["nothing", "all", "beginning", "selection", "sectors"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
#: Contents of a file between two syncs that are told apart in one state.
_MOST_VERSIONS = 12


@dataclass(frozen=True)
class State:
    """Disk after a power cut.

    Attributes:
        files: Content of each file by its path.
        marks: What the program had promised by then.
        operation: Number of the last operation that was done.
        variant: What of the unsynced operations is there.
    """

    files: dict[str, bytes]
    marks: tuple[Any, ...]
    operation: int
    variant: Variant

    def write(self, folder: Path) -> None:
        """Write the files into an empty folder."""
        for path, content in self.files.items():
            (folder / Path(path).name).write_bytes(content)

    def __str__(self) -> str:
        return f"power cut after operation {self.operation}; of what was not synced there is: {self.variant}"


def states(
    operations: Sequence[Operation],
    luck: random.Random,
    *,
    cuts: int,
    variants: Sequence[Variant] = VARIANTS,
) -> Iterator[State]:
    """Yield the disk after cuts at random operations, each in several variants.

    Cuts right after a promise are as many as all others: that is when it can be broken.
    """
    chosen = _moments(operations, luck, cuts)
    disk, marks = _Disk(), []
    for number, operation in enumerate(operations):
        if operation.kind == "mark":
            marks.append(operation.mark)
        else:
            disk.do(operation)
        if number in chosen:
            for variant in variants:
                yield State(disk.after_cut(variant, luck), tuple(marks), number, variant)


def tried(
    operations: Sequence[Operation],
    violations: Callable[[State, Path], Iterable[str]],
    luck: random.Random,
    *,
    cuts: int,
    folder: Path,
) -> Iterator[tuple[State, list[str]]]:
    """Yield each state with what is wrong with it, as ``violations`` says of an empty folder to lay it out in."""
    for state in states(operations, luck, cuts=cuts):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            yield state, list(violations(state, Path(place)))


def check(
    operations: Sequence[Operation],
    violations: Callable[[State, Path], Iterable[str]],
    *,
    cuts: int,
    least: int,
    folder: Path,
) -> None:
    """Assert that nothing is wrong after any of ``cuts`` power cuts, which make more than ``least`` states."""
    states_tried = list(tried(operations, violations, random.Random(1), cuts=cuts, folder=folder))
    assert len(states_tried) > least
    assert not [(str(state), wrong) for state, wrong in states_tried if wrong]


def _moments(operations: Sequence[Operation], luck: random.Random, cuts: int) -> set[int]:
    promises = [number for number, operation in enumerate(operations) if operation.kind == "mark"]
    half = min(len(promises), cuts // 2)
    return {*luck.sample(promises, half), *luck.sample(range(len(operations)), min(len(operations), cuts - half))}


@dataclass(eq=False)
class _File:
    """Content that was synced, and what was done since: (number, is a write, offset or length, bytes)."""

    synced: bytes = b""
    since: list[tuple[int, bool, int, bytes]] = field(default_factory=list)

    def sync(self) -> None:
        self.synced, self.since = self.content(self.since), []

    def length(self) -> int:
        """Return the number of bytes that the program sees."""
        length = len(self.synced)
        for _, is_write, offset, data in self.since:
            length = max(length, offset + len(data)) if is_write else offset
        return length

    def content(self, done: Sequence[tuple[int, bool, int, bytes]]) -> bytes:
        content = bytearray(self.synced)
        for _, is_write, offset, data in done:
            if is_write:
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
            else:
                del content[offset:]
                content.extend(bytes(offset - len(content)))
        return bytes(content)

    def selection(self, luck: random.Random) -> bytes:
        """Some of the writes are there, some of these torn."""
        there = []
        for number, is_write, offset, data in self.since:
            if luck.random() < 0.5:
                continue
            if is_write and luck.random() < 0.4:
                pieces = range(0, len(data), SECTOR)
                there += [(number, True, offset + at, data[at : at + SECTOR]) for at in pieces if luck.random() < 0.6]
            else:
                there.append((number, is_write, offset, data))
        return self.content(there)

    def sectors(self, luck: random.Random) -> bytes:
        """Each sector is as it was at some time since the last sync; so is the length.

        Cutting a file off writes nothing to the sectors behind its new end.
        """
        moments = range(len(self.since) + 1)
        chosen = sorted(luck.sample(moments, min(len(moments), _MOST_VERSIONS)))
        length = len(self.content(self.since[: luck.choice(chosen)]))
        versions = [self.content([done for done in self.since[:moment] if done[1]]) for moment in chosen]
        pieces = []
        for at in range(0, length, SECTOR):
            piece = luck.choice(versions)[at : at + SECTOR]
            pieces.append(piece + bytes(min(SECTOR, length - at) - len(piece[: length - at])))
        return b"".join(pieces)[:length]


@dataclass
class _Disk:
    """Files by name, as the program sees them and as they are on the disk."""

    names: dict[str, _File] = field(default_factory=dict)
    synced_names: dict[str, _File] = field(default_factory=dict)
    #: What was done to names and is not synced, with the file that was meant.
    log: list[tuple[int, Operation, _File]] = field(default_factory=list)
    #: Files by the handles of the program.
    open: dict[int, _File] = field(default_factory=dict)
    done: int = 0

    def do(self, operation: Operation) -> None:
        self.done += 1
        file = self.open.get(operation.handle)
        there = self.names.get(operation.path)
        match operation.kind:
            case "open":
                if there is None and operation.creates:
                    there = _File()
                    self._rename(operation, there)
                if there is not None:
                    self.open[operation.handle] = there
            case "write" if file is not None:
                offset = operation.offset if operation.offset >= 0 else file.length()
                file.since.append((self.done, True, offset, operation.data))
            case "truncate" if file is not None:
                file.since.append((self.done, False, operation.offset, b""))
            case "sync" if file is not None:
                file.sync()
            case "sync":
                self._sync_folder(operation.path)
            case "link" | "rename" | "unlink" if there is not None:
                self._rename(operation, there)
            case _:
                raise AssertionError(f"{operation} is of a file that was never made")

    def _rename(self, operation: Operation, file: _File) -> None:
        _apply(self.names, operation, file)
        self.log.append((self.done, operation, file))

    def _sync_folder(self, folder: str) -> None:
        of_it = [entry for entry in self.log if str(Path(entry[1].path).parent) == folder]
        for _, operation, file in of_it:
            _apply(self.synced_names, operation, file)
        self.log = [entry for entry in self.log if entry not in of_it]

    def after_cut(self, variant: Variant, luck: random.Random) -> dict[str, bytes]:
        """Return the content of each file that is there."""
        moment = luck.randrange(self.done + 1)
        names = dict(self.synced_names)
        for number, operation, file in self.log:
            if _survives(variant, number, moment, luck):
                _apply(names, operation, file)
        return {path: _content(file, variant, moment, luck) for path, file in names.items()}


def _survives(variant: Variant, number: int, moment: int, luck: random.Random) -> bool:
    if variant == "beginning":
        return number <= moment
    return variant == "all" or (variant != "nothing" and luck.random() < 0.5)


def _content(file: _File, variant: Variant, moment: int, luck: random.Random) -> bytes:
    match variant:
        case "nothing":
            return file.synced
        case "all":
            return file.content(file.since)
        case "beginning":
            return file.content([done for done in file.since if done[0] <= moment])
        case "selection":
            return file.selection(luck)
        case "sectors":
            return file.sectors(luck)


def _apply(names: dict[str, _File], operation: Operation, file: _File) -> None:
    """Change names as the operation does; of a file whose name is not there, nothing is left to rename."""
    match operation.kind:
        case "open":
            names[operation.path] = file
        case "link":
            names[operation.to] = file
        case "rename" if names.get(operation.path) is file:
            names[operation.to] = names.pop(operation.path)
        case "unlink" if names.get(operation.path) is file:
            del names[operation.path]
