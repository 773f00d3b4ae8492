"""An outbox that is used, closed and killed; and what it must hold after a power cut at any moment of that.

:func:`recorded` records the program ``python -m tests.upstream.outbox.lives OUTBOX SEED LIFE SYNCHRONOUS MARKS``.
"""

import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reid_edge.errors import OutboxError
from reid_edge.upstream.message import decode_observation
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.outbox.database import Synchronous
from tests.faults.powercut import State
from tests.faults.recording import Marks, Operation, record
from tests.upstream.observing import observed
from tests.upstream.outboxes import integrity

NAME = "outbox.db"
_LIVES = 3
_BOUNDS = {"max_rows": 80, "max_bytes": 200_000}


def recorded(seed: int, folder: Path, synchronous: Synchronous = "FULL") -> list[Operation]:
    """What the lives of an outbox did to its folder."""
    box, marks = folder / "box", folder / "marks"
    box.mkdir()
    program = [sys.executable, "-m", "tests.upstream.outbox.lives"]
    commands = [[*program, box / NAME, str(seed), str(life), synchronous, marks] for life in range(_LIVES)]
    return record(commands, folder=box, marks=marks)


def _live(path: str, seed: int, life: int, synchronous: Synchronous, marks: Marks) -> None:
    """Put, acknowledge, expire and lose; every second life ends by SIGKILL."""
    luck = random.Random(f"{seed} {life}")
    made = [observed(track, dim=128) for track in range(40)]
    outbox = Outbox(path, synchronous=synchronous, **_BOUNDS)
    for _ in range(12):
        count = luck.randrange(1, 30)
        outbox.put(made[:count])
        marks.say(["put", outbox.incarnation, outbox.last_seq - count + 1, outbox.last_seq])
        if luck.random() < 0.5:
            seqs = [seq for seq, _ in outbox.pending(0, luck.randrange(1, 20))]
            gaps = [(gap.first_seq, gap.last_seq) for gap in (outbox.gaps() if luck.random() < 0.4 else [])]
            marks.say(["acknowledging", outbox.incarnation, seqs, gaps])
            outbox.acknowledge(Ack("c", outbox.incarnation, tuple(seqs), tuple(gaps)))
        if luck.random() < 0.15:
            outbox.expire()
        if luck.random() < 0.1:
            outbox.lose(2)
    if life % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    outbox.close()


@dataclass
class Promised:
    """What the marks of a state say.

    Attributes:
        rows: Numbers and tracks of the rows that had been put.
        acknowledged: Rows whose acknowledgement had at least begun.
        declared: Gaps whose acknowledgement had at least begun, first and last number.
        incarnations: Incarnations that had been seen.
    """

    rows: dict[int, int] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    declared: list[tuple[int, int]] = field(default_factory=list)
    incarnations: set[str] = field(default_factory=set)


def promised(state: State) -> Promised:
    """Return what must hold after the power cut."""
    all_ = Promised()
    for kind, incarnation, *rest in state.marks:
        all_.incarnations.add(incarnation)
        if kind == "put":
            first, last = rest
            all_.rows |= {seq: seq - first for seq in range(first, last + 1)}
        else:
            all_.acknowledged |= set(rest[0])
            all_.declared += map(tuple, rest[1])
    return all_


def violations(state: State, folder: Path) -> Iterator[str]:
    """Open the outbox as the power cut left it, in an empty folder, and yield each promise that is broken."""
    state.write(folder)
    try:
        yield from _violations(promised(state), folder)
    except (OutboxError, sqlite3.Error) as error:
        yield f"it cannot be used: {error}"


def _violations(must: Promised, folder: Path) -> Iterator[str]:
    with contextlib.closing(Outbox(folder / NAME, **_BOUNDS)) as outbox:
        held = {seq: decode_observation(payload).track for seq, payload in outbox.pending(0, 10**6)}
        if outbox.set_aside:
            yield f"it is taken for damaged: {outbox.set_aside}"
        if must.incarnations and {outbox.incarnation} != must.incarnations:
            yield f"the incarnation is {outbox.incarnation} after {must.incarnations}"
        if outbox.last_seq < max(must.rows, default=0):
            yield f"numbers after {outbox.last_seq} are given again"
    with contextlib.closing(sqlite3.connect(folder / NAME)) as db:
        dropped = must.declared + db.execute("SELECT first_seq, last_seq FROM gaps WHERE reason = 'full'").fetchall()
    for seq, track in must.rows.items():
        if held.get(seq, track) != track:
            yield f"row {seq} is of track {held[seq]} instead of {track}"
        if not (seq in held or seq in must.acknowledged or any(first <= seq <= last for first, last in dropped)):
            yield f"row {seq} is gone"
    if (found := integrity(folder / NAME)) != "ok":
        yield f"the file is unsound: {found}"


if __name__ == "__main__":
    _live(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Marks(sys.argv[5]))
