"""Random schedules: one to three galleries, losses, refusals, restarts; nothing is lost silently or stored twice."""

import os
import random
from dataclasses import replace

import pytest

from reid_edge.errors import TransportError
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.message import decode_ack, decode_batch, encode_ack
from reid_edge.upstream.observation import Ack, Refusal, Replay
from reid_edge.upstream.outbox import Outbox
from tests.traffic import wait_until
from tests.upstream.observing import observed

CAMERA = "camA"
PATIENCE_S = 30.0
#: More by hand: REID_EDGE_SCHEDULES=500 pytest tests/upstream/delivery/test_schedules.py
SCHEDULES = int(os.environ.get("REID_EDGE_SCHEDULES", "12"))


class Gallery:
    """Stores by id, and declines rows for a while."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name, self._rng = name, rng
        self.stored: dict[tuple[str, int], int] = {}
        self.gaps: dict[tuple[str, int, int], int] = {}
        self.away = self.strict = False

    def receive(self, payload: bytes) -> bytes | None:
        batch = decode_batch(payload)
        if self.away or self.name not in batch.galleries:
            return None
        taken, refused = [], []
        for seq, seen in batch.observations:
            if self.strict and seen.track % 3 == 0:
                refused.append(seq)
                continue
            assert self.stored.setdefault((batch.incarnation, seq), seen.track) == seen.track
            taken.append(seq)
        for gap in batch.gaps:
            key = (batch.incarnation, gap.first_seq, gap.last_seq)
            assert self.gaps.setdefault(key, gap.count) == gap.count
        gaps = tuple((gap.first_seq, gap.last_seq) for gap in batch.gaps)
        refusals = (Refusal(tuple(refused), "not now"),) if refused else ()
        return encode_ack(Ack(batch.camera, batch.incarnation, tuple(taken), gaps, refusals, self.name))


class Network:
    """Carries each batch to every gallery, or not, and their answers, and noise, in any order."""

    name = "network"

    def __init__(self, galleries: list[Gallery], seed: int) -> None:
        self._galleries = galleries
        self._rng = random.Random(seed)
        self._answers: list[bytes] = []
        self.losses = 0

    def send(self, batch: bytes) -> None:
        rng = self._rng
        fate = rng.random()
        if fate < 0.05:
            raise TransportError("no network")
        for gallery in rng.sample(self._galleries, len(self._galleries)):
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                answer = gallery.receive(batch)
                if answer is not None and rng.random() < 0.8:
                    self._answers.extend([answer] * rng.choice([1, 1, 2]))
        if rng.random() < 0.2:
            self._answers.append(self._noise(batch))
        if fate < 0.1:
            self.losses += 1
            raise TransportError("lost after it was sent")

    def _noise(self, batch: bytes) -> bytes:
        sent = decode_batch(batch)
        everything = Ack(CAMERA, sent.incarnation, tuple(range(1, 300)), ((1, 10**6),), (), "stranger")
        return self._rng.choice(
            [
                encode_ack(everything),
                encode_ack(replace(everything, incarnation="0" * 16, gallery="a")),
                encode_ack(replace(everything, seqs=(10**9,), gaps=(), gallery="a")),
                encode_ack(replace(everything, camera="camB", gallery="a")),
                encode_ack(Ack(CAMERA, sent.incarnation, (), (), (), "a", Replay("r1", 0))),
                self._rng.randbytes(30),
            ]
        )

    def acks(self, timeout_s: float) -> list[bytes]:
        self._rng.shuffle(self._answers)
        count = self._rng.randrange(len(self._answers) + 1)
        answers, self._answers = self._answers[:count], self._answers[count:]
        return answers

    def close(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_every_gallery_has_every_row_or_a_gap_for_it_and_none_twice(ram_path, monkeypatch, seed):
    monkeypatch.setattr("reid_edge.upstream.delivery.receiver.ACK_WAIT_S", 0.01)
    rng = random.Random(seed)
    names = ("a", "b", "c")[: rng.randrange(1, 4)]
    galleries = [Gallery(name, rng) for name in names]
    options = {
        "max_rows": rng.choice([40, 10_000]),
        "when_full": rng.choice(["drop-oldest", "refuse-newest"]),
        "synchronous": "NORMAL",
    }
    given: dict[tuple[str, int], int] = {}
    track = 0
    for life in range(4):
        outbox = Outbox(ram_path / "outbox.db", **options)
        delivery = Delivery(
            outbox,
            Network(galleries, rng.getrandbits(32)),
            camera=CAMERA,
            galleries=names,
            window_rows=rng.choice([5, 60]),
            batch_rows=8,
            resend_s=0.03,
            retry_refused_s=0.03,
            most_backoff_s=0.02,
        )
        delivery.start()
        for _ in range(rng.randrange(3, 15)):
            for gallery in galleries:
                gallery.away, gallery.strict = rng.random() < 0.3, rng.random() < 0.2
            count = rng.randrange(1, 15)
            outbox.put([observed(track + number, dim=4) for number in range(count)])
            first = outbox.last_seq - count + 1
            given.update(((outbox.incarnation, first + number), track + number) for number in range(count))
            track += count
        if life == 3:
            for gallery in galleries:
                gallery.away = gallery.strict = False
            # A stop does not wait for rows that were refused and are tried again later.
            wait_until(lambda: (outbox.depth, outbox.gap_count) == (0, 0), "everything was taken")  # noqa: B023
        drained = delivery.stop(PATIENCE_S if life == 3 else rng.uniform(0, 0.2))
        left = (outbox.depth, outbox.gap_count)
        assert delivery.stats.internal_errors == 0
        outbox.close()
    assert drained
    assert left == (0, 0)
    for gallery in galleries:
        assert gallery.stored.items() <= given.items()
        for incarnation, seq in given.keys() - gallery.stored.keys():
            assert any(inc == incarnation and first <= seq <= last for inc, first, last in gallery.gaps)
        missing = len(given) - len(gallery.stored)
        assert missing <= sum(gallery.gaps.values())


def test_the_schedules_acknowledge_what_they_say():
    """A gallery of the schedules answers as a real one does."""
    gallery = Gallery("a", random.Random(0))
    from reid_edge.upstream.message import encode_batch, encode_observation

    batch = encode_batch(CAMERA, "e0", [(1, encode_observation(observed(1)))], galleries=["a"])
    assert decode_ack(gallery.receive(batch)).seqs == (1,)
    assert gallery.receive(encode_batch(CAMERA, "e0", [], galleries=["b"])) is None
