"""A camera whose gallery changes from life to life; and what its outboxes must hold after a power cut at any moment.

:func:`recorded` records the program ``python -m tests.upstream.outbox.exchange_lives OUTBOX SEED LIFE MARKS``.
"""

import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from reid_edge.errors import OutboxError
from reid_edge.upstream.message import decode_observation
from reid_edge.upstream.observation import Ack, Replay
from reid_edge.upstream.outbox import Destination, Outbox
from tests.faults.powercut import State
from tests.faults.recording import Marks, Operation, record
from tests.upstream.observing import observed

NAME = "outbox.db"
GALLERIES = [str(Destination.of("cam", f"mqtts://{name}")) for name in ("north", "south")]
_LIVES = 4
_KEEP_S = 3600.0


def recorded(seed: int, folder: Path) -> list[Operation]:
    """What the lives did to the folder of the outboxes."""
    box, marks = folder / "box", folder / "marks"
    box.mkdir()
    program = [sys.executable, "-m", "tests.upstream.outbox.exchange_lives"]
    return record(
        [[*program, box / NAME, str(seed), str(life), marks] for life in range(_LIVES)], folder=box, marks=marks
    )


def _live(path: str, seed: int, life: int, marks: Marks) -> None:
    """Put, acknowledge and replay for one of two galleries; every second life ends by SIGKILL."""
    luck = random.Random(f"{seed} {life}")
    destination = GALLERIES[life % 2]
    outbox = Outbox(path, destination=destination, keep_acknowledged_s=_KEEP_S)
    for step in range(6):
        count = luck.randrange(1, 20)
        track = life * 10_000 + step * 100
        outbox.put([observed(track + number, dim=64) for number in range(count)])
        marks.say(["put", destination, track, count])
        if luck.random() < 0.5:
            rows = outbox.pending(0, luck.randrange(1, 20))
            marks.say(["acknowledging", destination, [decode_observation(payload).track for _, payload in rows]])
            outbox.acknowledge(Ack("cam", outbox.incarnation, tuple(seq for seq, _ in rows)))
        if luck.random() < 0.2:
            outbox.replay(Replay(f"r{life}-{step}", 0))
        if luck.random() < 0.2:
            outbox.expire()
    if luck.random() < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    outbox.close()


def violations(state: State, folder: Path) -> Iterator[str]:
    """Open the outbox for both galleries as the power cut left it, and yield each promise that is broken."""
    state.write(folder)
    put: dict[str, set[int]] = {gallery: set() for gallery in GALLERIES}
    acknowledged: set[int] = set()
    for kind, gallery, *rest in state.marks:
        if kind == "put":
            put[gallery] |= set(range(rest[0], rest[0] + rest[1]))
        else:
            acknowledged |= set(rest[0])
    try:
        for gallery in GALLERIES:
            yield from _violations(gallery, put[gallery], acknowledged, folder)
    except (OutboxError, sqlite3.Error) as error:
        yield f"it cannot be used: {error}"


def _violations(gallery: str, put: set[int], acknowledged: set[int], folder: Path) -> Iterator[str]:
    with contextlib.closing(Outbox(folder / NAME, destination=gallery, keep_acknowledged_s=_KEEP_S)) as outbox:
        if outbox.set_aside:
            yield f"it is taken for damaged: {outbox.set_aside}"
        tracks = [decode_observation(payload).track for _, payload in outbox.pending(0, 10**6)]
        if len(set(tracks)) != len(tracks):
            yield "a row is there twice"
        for track in tracks:
            if GALLERIES[track // 10_000 % 2] != gallery:
                yield f"row {track} waits for {gallery}"
        if gone := put - set(tracks) - acknowledged:
            yield f"rows {sorted(gone)} for {gallery} are gone; declared as missing: {outbox.missing}"


if __name__ == "__main__":
    _live(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Marks(sys.argv[4]))
