"""Outboxes and clocks for tests."""

import contextlib
import random
import sqlite3
from pathlib import Path

from reid_edge.upstream.clocks import PLAUSIBLE_US, Reading
from reid_edge.upstream.message import decode_observation
from reid_edge.upstream.outbox import Outbox

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = PLAUSIBLE_US + 300 * DAY


class Clocks:
    """A machine's clocks, as the test sets them."""

    def __init__(self, wall_us: int = NOW) -> None:
        self.boot, self.boot_us, self.wall_us = "boot-1", 100 * SECOND, wall_us

    def __call__(self) -> Reading:
        return Reading(self.boot, self.boot_us, self.wall_us)

    def run(self, us: int) -> None:
        self.boot_us += us
        self.wall_us += us

    def reboot(self, *, off_us: int = 0, wall_us: int | None = None) -> None:
        self.boot, self.boot_us = f"boot-{random.getrandbits(32)}", 20 * SECOND
        self.wall_us = self.wall_us + off_us if wall_us is None else wall_us


@contextlib.contextmanager
def opened(path, **options):
    outbox = Outbox(path, **options)
    try:
        yield outbox
    finally:
        outbox.close()


def tracks(outbox: Outbox, after_seq: int = 0, limit: int = 10**6) -> list[int]:
    return [decode_observation(payload).track for _, payload in outbox.pending(after_seq, limit)]


def seqs(outbox: Outbox) -> list[int]:
    return [seq for seq, _ in outbox.pending(0, 10**6)]


def integrity(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
