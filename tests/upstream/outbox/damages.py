"""Outboxes that are damaged on disk, at rest or in use, and what must hold of them afterwards.

An outbox lives a random life, up to its closing or to a kill.  Then one of its files is damaged, it is opened, and all
of it is delivered to a gallery.  Each row that ``put`` had returned for must be there with the bytes that were put, or
be counted by a gap.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reid_edge.errors import ReidEdgeError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.store import open_store
from reid_edge.upstream import observation_pb2
from reid_edge.upstream.message import decode_ack, decode_batch, encode_batch, encode_observation
from reid_edge.upstream.observation import Observation
from reid_edge.upstream.outbox import Outbox
from tests.faults.damage import damage_file
from tests.upstream.observing import observed

NAME = "outbox.db"
_CAMERA = "cam"
_FILES = ("", "-wal", ".mark")
#: More batches than any outbox here needs.
_MOST_BATCHES = 400


@dataclass
class Gallery:
    """A real collector on a store of its own, and what it was sent.

    Attributes:
        rows: Payload of each row that was delivered, by incarnation and number.
        gaps: Observations of each gap that was delivered, by incarnation and range: a store keeps the first of each.
        changed: Rows that came twice with different bytes.
    """

    folder: Path
    rows: dict[tuple[str, int], bytes] = field(default_factory=dict)
    gaps: dict[tuple[str, int, int], int] = field(default_factory=dict)
    changed: list[tuple[str, int]] = field(default_factory=list)

    def deliver(self, outbox: Outbox, *, batches: int = _MOST_BATCHES, rows: int = 64) -> bool:
        """Deliver up to so many batches; returns whether nothing is left."""
        with contextlib.closing(open_store(f"sqlite:{self.folder}/gallery.db", create=True)) as store:
            collector = Collector(store)
            for _ in range(batches):
                sent = outbox.pending(0, rows) or outbox.pending(0, rows)  # a delivery looks again each minute, too
                gaps = outbox.gaps()
                if not sent and not gaps:
                    break
                batch = encode_batch(_CAMERA, outbox.incarnation, sent, gaps)
                (answer,) = collector.receive([batch])
                self._note(batch)
                outbox.acknowledge(decode_ack(answer))
        return outbox.depth == 0 and outbox.gap_count == 0

    def _note(self, batch: bytes) -> None:
        wire = observation_pb2.Batch.FromString(batch)
        for row in wire.rows:
            key = wire.epoch, row.seq
            if self.rows.setdefault(key, row.observation) != row.observation:
                self.changed.append(key)
        for gap in decode_batch(batch).gaps:
            self.gaps.setdefault((wire.epoch, gap.first_seq, gap.last_seq), gap.count)


@dataclass
class Life:
    """An outbox that has lived, in a folder of its own.

    Attributes:
        folder: Has its files.
        dim: Numbers of a feature.
        put: Payload of each row that was put, by incarnation and number.
        given_up: Observations that could not be put.
        gallery: What had been delivered before.
    """

    folder: Path
    dim: int
    put: dict[tuple[str, int], bytes]
    given_up: int
    gallery: Gallery


def _seen(track: int, dim: int) -> Observation:
    """Return an observation of now: a gallery refuses old ones."""
    return observed(track, dim=dim, captured_us=time.time_ns() // 1000)


def lived(seed: int, folder: Path) -> Life:
    """Let an outbox live: put, deliver, give up, expire; closed in the end, or copied while it is open as by a kill."""
    luck = random.Random(seed)
    dim = luck.choice([8, 128, 512])
    made = [_seen(track, dim) for track in range(40)]
    here, left = folder / "lives", folder / "left"
    here.mkdir()
    left.mkdir()
    life = Life(left, dim, {}, 0, Gallery(left))
    outbox = Outbox(here / NAME, max_rows=luck.choice([60, 10_000]))
    for _ in range(luck.randrange(3, 30)):
        some = luck.choices(made, k=luck.randrange(1, 40))
        outbox.put(some)
        first = outbox.last_seq - len(some) + 1
        life.put |= {(outbox.incarnation, first + n): encode_observation(one, "fp16") for n, one in enumerate(some)}
        if luck.random() < 0.3:
            life.gallery.deliver(outbox, batches=luck.randrange(1, 4), rows=luck.randrange(1, 40))
        if luck.random() < 0.1:
            outbox.lose(3)
            life.given_up += 3
        if luck.random() < 0.15:
            outbox.expire()
    if luck.random() < 0.4:
        outbox.close()
    for suffix in _FILES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(here / f"{NAME}{suffix}", left)
    outbox.close()
    return life


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged outbox.

    Attributes:
        how: The damage.
        wrong: Broken promises; empty if all is well.
        kind: ``all delivered``, ``declared`` or ``set aside and declared``.
        missing: Rows that were not delivered.
        declared: Observations counted by gaps.
    """

    how: str
    wrong: list[str]
    kind: str
    missing: int
    declared: int


def damaged_at_rest(life: Life, luck: random.Random, folder: Path) -> Outcome:
    """Damage one file of an outbox that lies still, open it and deliver it; ``folder`` is empty."""
    shutil.copytree(life.folder, folder, dirs_exist_ok=True)
    there = [folder / f"{NAME}{suffix}" for suffix in ("", "-wal")]
    file = luck.choice([path for path in there if path.exists() and path.stat().st_size])
    how = str(damage_file(file, luck))
    try:
        outbox = Outbox(folder / NAME)
    except ReidEdgeError as error:
        return Outcome(how, [f"it does not open: {error}"], "refused", 0, 0)
    with contextlib.closing(outbox):
        return _delivered(life, outbox, folder, how)


def damaged_in_use(life: Life, luck: random.Random, folder: Path) -> Outcome:
    """Damage a file of an outbox that is open, with nothing in SQLite's memory, and go on; ``folder`` is empty."""
    shutil.copytree(life.folder, folder, dirs_exist_ok=True)
    with contextlib.closing(Outbox(folder / NAME)) as outbox:
        outbox._file._db.execute("PRAGMA cache_size = 1")
        if luck.random() < 0.5:
            outbox._file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        there = [folder / f"{NAME}{suffix}" for suffix in ("", "-wal")]
        how = "in use, " + str(damage_file(luck.choice([path for path in there if path.stat().st_size]), luck))
        for step in luck.choices(["oldest", "expire", "pending"], k=2):
            with contextlib.suppress(ReidEdgeError):
                {"oldest": outbox.oldest_age_s, "expire": outbox.expire, "pending": lambda: outbox.pending(0, 9)}[
                    step
                ]()
        return _delivered(life, outbox, folder, how)


def _delivered(life: Life, outbox: Outbox, folder: Path, how: str) -> Outcome:
    gallery = Gallery(folder, dict(life.gallery.rows), dict(life.gallery.gaps))
    put = dict(life.put)
    new = [_seen(track, life.dim) for track in (101, 102, 103)]
    before = {seq for _, seq in put}
    for _ in range(3):  # a damage that is found by a put may show as an error first
        with contextlib.suppress(ReidEdgeError):
            outbox.put(new)
            first = outbox.last_seq - 2
            put |= {(outbox.incarnation, first + n): encode_observation(one, "fp16") for n, one in enumerate(new)}
            break
    else:
        return Outcome(how, ["nothing can be put"], "stuck", 0, 0)
    wrong = [f"number {first} is given again"] if first in before else []
    for _ in range(3):
        with contextlib.suppress(ReidEdgeError):
            if gallery.deliver(outbox):
                break
    else:
        wrong.append(f"stuck: {outbox.depth} rows, {outbox.gap_count} gaps")
    wrong += [f"row {key} was delivered with other bytes" for key in gallery.changed]
    for key, payload in gallery.rows.items():
        if put.get(key) != payload:
            wrong.append(f"row {key} was delivered, and was not put so")
    missing = len(put.keys() - gallery.rows.keys())
    declared = sum(gallery.gaps.values())
    if declared < missing + life.given_up:
        wrong.append(f"{missing} rows are missing, {life.given_up} were given up, and {declared} declared")
    kind = "set aside and declared" if outbox.set_aside else "declared" if missing else "all delivered"
    return Outcome(how, wrong, kind, missing, declared - life.given_up)


def outcomes(seeds: range, each: int, folder: Path) -> Iterator[tuple[int, Outcome]]:
    """Yield what becomes of so many damages at rest of the life of each seed, and of half as many in use."""
    for seed in seeds:
        home = folder / str(seed)
        home.mkdir()
        life, luck = lived(seed, home), random.Random(f"damages {seed}")
        for number in range(each + each // 2):
            case = home / str(number)
            case.mkdir()
            try:
                yield seed, (damaged_at_rest if number < each else damaged_in_use)(life, luck, case)
            finally:
                shutil.rmtree(case)
        shutil.rmtree(home)


def summary(found: list[Outcome]) -> Counter[str]:
    """Return how many outcomes there are of each kind."""
    return Counter(outcome.kind for outcome in found)
