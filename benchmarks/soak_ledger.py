"""The soak's accounts: what outboxes committed, and where each of these observations is in the end."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.clocks import sleep_under_libfaketime

#: An agent follows a restored gallery's request once in ten minutes; here galleries are restored more often than that.
_REPLAY_AGAIN_S = 10.0
#: Camera, incarnation of its outbox, sequence number.
Key = tuple[str, str, int]


def run_agent(ledger: str, arguments: list[str]) -> None:
    """``reid-edge run`` with a ledger of committed puts: one line of JSON each, fsynced at once."""
    sleep_under_libfaketime()
    from reid_edge.cli import main as reid_edge
    from reid_edge.upstream.delivery import receiver
    from reid_edge.upstream.message import decode_observation
    from reid_edge.upstream.outbox import Outbox

    receiver.REPLAY_AGAIN_S = _REPLAY_AGAIN_S
    put, file = Outbox.put_encoded, Path(ledger).open("a", buffering=1, encoding="ascii")  # noqa: SIM115 - lives as long

    def put_and_tell(outbox, payloads):
        with outbox._file.lock:  # delivery may find damage and begin another incarnation
            put(outbox, payloads)
            if payloads:
                first, tracks = outbox.last_seq - len(payloads) + 1, [decode_observation(one).track for one in payloads]
                file.write(json.dumps([outbox.incarnation, first, tracks]) + "\n")
                os.fsync(file.fileno())

    Outbox.put_encoded = put_and_tell
    sys.argv = ["reid-edge", "run", *arguments]
    reid_edge()


def committed(camera: str, ledgers: Iterable[Path]) -> dict[Key, int]:
    """Return the observations that a camera's outboxes committed, with their tracks."""
    found = {}
    for ledger in ledgers:
        for line in ledger.read_text(encoding="ascii").splitlines() if ledger.exists() else []:
            with contextlib.suppress(ValueError):  # the last line of a life that was killed
                incarnation, first, tracks = json.loads(line)
                found |= {(camera, incarnation, seq): track for seq, track in enumerate(tracks, first)}
    return found


def stored(gallery: Path) -> Counter[Key]:
    """Return the observations of a SQLite gallery; empty if there is none, or if it cannot be read now."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(gallery)) as db:
        return Counter(db.execute("SELECT camera, epoch, seq FROM observations"))
    return Counter()


def repeated(gallery: Path) -> int:
    """Return the number of observations that are in the gallery under two numbers."""
    query = """SELECT total(n - 1) FROM (SELECT count(*) n FROM observations
               GROUP BY camera, track, captured_us, first_us, last_us, crops, final)"""
    with contextlib.closing(_read_only(gallery)) as db:
        return int(db.execute(query).fetchone()[0])


@dataclass(frozen=True)
class Declared:
    """Gap that the gallery holds."""

    camera: str
    incarnation: str
    first_seq: int
    last_seq: int
    count: int
    reason: str

    def covers(self, key: Key) -> bool:
        """Return whether an observation is of its range."""
        return key[:2] == (self.camera, self.incarnation) and self.first_seq <= key[2] <= self.last_seq


def declared(gallery: Path) -> list[Declared]:
    """Return the gaps of a SQLite gallery."""
    with contextlib.closing(_read_only(gallery)) as db:
        return [
            Declared(*row)
            for row in db.execute("SELECT camera, epoch, first_seq, last_seq, count, reason FROM gaps")
            if row[-1] != "elsewhere"  # of batches that were for another gallery
        ]


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)


@dataclass
class Account:
    """Where the committed observations are.

    Attributes:
        committed: All.
        stored: Those that the gallery holds.
        erased: Those that were erased on purpose, and are not there.
        waiting: Those that their outbox still holds, e.g. because the gallery refuses them.
        declared: Those that a gap of their incarnation covers, or that a gap of a later one counts.
        lost: All others.
        twice: Observations that the gallery holds twice.
        back: Erased observations that are there.
    """

    committed: int = 0
    stored: int = 0
    erased: int = 0
    waiting: int = 0
    declared: int = 0
    lost: list[Key] = field(default_factory=list)
    twice: int = 0
    back: list[Key] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every promise was kept, and there was something to keep."""
        return not self.lost and not self.twice and not self.back and self.stored > 0

    def __str__(self) -> str:
        return (
            f"{self.committed} observations committed by outboxes: {self.stored} stored, {self.declared} declared in "
            f"gaps, {self.erased} erased, {self.waiting} still waiting, {len(self.lost)} lost silently; "
            f"{self.twice} stored twice, {len(self.back)} erased and back"
        )


def settle(
    rows: dict[Key, int],
    there: Counter[Key],
    gaps: list[Declared],
    *,
    waiting: set[Key],
    erased: set[tuple[str, str, int]],
) -> Account:
    """Say of each committed observation where it is.

    A gap of another incarnation than the observation's own, which began when a damaged file was set aside, counts rows
    without naming them: of each camera, as many may be missing as such gaps count beyond the rows that they cover.

    Args:
        rows: Committed observations with their tracks.
        there: What the gallery holds.
        gaps: Gaps that the gallery holds.
        waiting: What outboxes still hold.
        erased: Erased tracklets: camera, incarnation, track.
    """
    account = Account(committed=len(rows), twice=sum(count - 1 for count in there.values()))
    unnamed, covered = defaultdict(list), Counter[Declared]()
    for key, track in rows.items():
        out = (*key[:2], track) in erased
        if key in there:
            account.stored += 1
            account.back += [key] if out else []
        elif out:
            account.erased += 1
        elif key in waiting:
            account.waiting += 1
        elif gap := next((gap for gap in gaps if gap.covers(key) and covered[gap] < gap.count), None):
            account.declared += 1
            covered[gap] += 1
        else:
            unnamed[key[0]].append(key)
    for camera, missing in unnamed.items():
        of_it = [gap for gap in gaps if gap.camera == camera and gap.reason == "lost"]
        spare = sum(gap.count - covered[gap] for gap in of_it)
        account.declared += min(spare, len(missing))
        account.lost += missing[spare:]
    return account
