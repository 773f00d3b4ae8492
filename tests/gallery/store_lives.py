"""A SQLite gallery that is filled, searched, erased from, closed and killed; and what it must hold after a power cut.

:func:`recorded` records the program ``python -m tests.gallery.store_lives GALLERY SEED LIFE MARKS``.
"""

import contextlib
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reid_edge.errors import StoreError
from reid_edge.gallery import audit
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.deletion import erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.search import query_by_feature, search
from reid_edge.gallery.store import open_store
from reid_edge.upstream.message import decode_ack, encode_batch, encode_observation
from reid_edge.upstream.observation import Gap
from tests.faults.powercut import State
from tests.faults.recording import Marks, Operation, record
from tests.traffic import INCARNATION
from tests.upstream.observing import observed, unit
from tests.upstream.outboxes import integrity

NAME = "gallery.db"
_LIVES = 2
_CAMERAS = ("camA", "camB")


def recorded(seed: int, folder: Path) -> list[Operation]:
    """What the lives of a gallery did to its folder."""
    place, marks = folder / "place", folder / "marks"
    place.mkdir()
    program = [sys.executable, "-m", "tests.gallery.store_lives"]
    commands = [[*program, place / NAME, str(seed), str(life), marks] for life in range(_LIVES)]
    return record(commands, folder=place, marks=marks)


def _live(path: str, seed: int, life: int, marks: Marks) -> None:
    """Receive, receive again, search and erase; every second life ends by SIGKILL."""
    luck = random.Random(f"{seed} {life}")
    store = open_store(f"sqlite:{path}", create=True)
    collector = Collector(store)
    at_us, seq = _now_us(), 1 + 10_000 * life
    for turn in range(12):
        camera = luck.choice(_CAMERAS)
        seqs = range(max(1, seq - 3), seq + luck.randrange(1, 12))  # some come again
        seq = seqs[-1] + 1
        gaps = [Gap(seq, seq + 4, 5, "full")] if luck.random() < 0.2 else []
        seq += 5 * len(gaps)
        marks.say(["sent", camera, list(seqs), at_us])
        ack = decode_ack(collector.receive([_batch(camera, dict.fromkeys(seqs, at_us), gaps)])[0])
        assert ack.seqs == tuple(seqs), ack
        marks.say(["stored", camera, ack.seqs, ack.gaps])
        if luck.random() < 0.25:
            _erase(store, camera, luck.choice(seqs), marks)
        if luck.random() < 0.25:
            _search(store, turn, marks)
    if life % 2 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    store.close()


def _batch(camera: str, seen_us: dict[int, int], gaps: list[Gap]) -> bytes:
    """The same bytes each time: each observation is of a track of its own."""
    seen = [(seq, observed(seq, captured_us=at_us)) for seq, at_us in seen_us.items()]
    return encode_batch(camera, INCARNATION, [(seq, encode_observation(one)) for seq, one in seen], gaps)


def _now_us() -> int:
    return time.time_ns() // 1000


def _erase(store, camera: str, track: int, marks: Marks) -> None:
    marks.say(["erasing", camera, track])
    erase_with_receipt(store, Selection(cameras=(camera,), track=track), purpose="asked for", now_us=_now_us())
    marks.say(["erased", camera, track])


def _search(store, turn: int, marks: Marks) -> None:
    model_hash = store.models()[0].model_hash
    purpose = f"case {turn}"
    query = query_by_feature(unit(turn), model_hash, image_sha256="ab" * 32)
    search(store, query, selection=Selection(), purpose=purpose, now_us=_now_us())
    marks.say(["audited", purpose])


@dataclass
class Promised:
    """What the marks of a state say: keys are (camera, number).

    Attributes:
        sent: Observations that may be stored, with the time at which they were seen first.
        stored: Those that were acknowledged.
        gaps: Gaps that were acknowledged, (camera, first number, last number).
        erasing: Observations whose erasure had begun.
        erased: Those that a receipt had been given for.
        audited: Purposes of searches that had been answered.
    """

    sent: dict[tuple[str, int], int] = field(default_factory=dict)
    stored: set[tuple[str, int]] = field(default_factory=set)
    gaps: set[tuple[str, int, int]] = field(default_factory=set)
    erasing: set[tuple[str, int]] = field(default_factory=set)
    erased: set[tuple[str, int]] = field(default_factory=set)
    audited: list[str] = field(default_factory=list)


def promised(state: State) -> Promised:
    """Return what must hold after the power cut."""
    all_ = Promised()
    for kind, *rest in state.marks:
        match kind, rest:
            case "sent", [camera, seqs, at_us]:
                all_.sent = {(camera, seq): at_us for seq in seqs} | all_.sent
            case "stored", [camera, seqs, gaps]:
                all_.stored |= {(camera, seq) for seq in seqs}
                all_.gaps |= {(camera, first, last) for first, last in gaps}
            case (("erasing" | "erased"), [camera, track]):
                (all_.erasing if kind == "erasing" else all_.erased).add((camera, track))
            case "audited", [purpose]:
                all_.audited.append(purpose)
    return all_


def violations(state: State, folder: Path) -> Iterator[str]:
    """Open the gallery as the power cut left it, in an empty folder, and yield each promise that is broken."""
    state.write(folder)
    try:
        yield from _violations(promised(state), folder)
    except (StoreError, sqlite3.Error) as error:
        yield f"it cannot be used: {error}"


def _violations(must: Promised, folder: Path) -> Iterator[str]:
    with contextlib.closing(open_store(f"sqlite:{folder / NAME}", create=True)) as store:
        with contextlib.closing(sqlite3.connect(folder / NAME)) as db:
            rows = db.execute("SELECT camera, seq, track FROM observations").fetchall()
            gaps = set(db.execute("SELECT camera, first_seq, last_seq FROM gaps"))
        held = {(camera, seq) for camera, seq, _ in rows}
        yield from (f"acknowledged and gone: {lost}" for lost in sorted(must.stored - held - must.erasing))
        yield from (f"never sent: {key}" for key in sorted(held - set(must.sent)))
        yield from (f"acknowledged gap gone: {gap}" for gap in sorted(must.gaps - gaps))
        yield from (f"erased and back: {key}" for key in sorted(must.erased & held))
        yield from (f"stored twice: {key}" for key in _CAMERAS if len(rows) != len(held))
        entries = store.audit_entries(10**6)
        searches = [entry.purpose for entry in entries if entry.action == "search"]
        if alarms := [entry.action for entry in entries if entry.action in ("commits lost", "file replaced")]:
            yield f"false alarms: {alarms}"
        if must.audited != searches[: len(must.audited)]:
            yield f"of the searches {must.audited} the audit holds {searches}"
        yield from audit.verify(store).faults
        yield from _after_sending_again(store, must)
    if (found := integrity(folder / NAME)) != "ok":
        yield f"the file is unsound: {found}"


def _after_sending_again(store, must: Promised) -> Iterator[str]:
    """Yield what is wrong once cameras have sent again what was not acknowledged, and what was erased."""
    collector = Collector(store)
    for camera in _CAMERAS:
        of_it = {seq: at_us for (one, seq), at_us in must.sent.items() if one == camera}
        again = {seq: at_us for seq, at_us in of_it.items() if (camera, seq) not in must.stored - must.erased}
        (ack,) = map(decode_ack, collector.receive([_batch(camera, again, [])]))
        if set(ack.seqs) != set(again):
            yield f"not acknowledged: {set(again) - set(ack.seqs)} of {camera}: {ack.refused}"
        back = [seq for seq in again if (camera, seq) in must.erased and store.find(camera, INCARNATION, seq)]
        yield from (f"erased and stored again: {camera} {seq}" for seq in back)


if __name__ == "__main__":
    _live(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Marks(sys.argv[4]))
