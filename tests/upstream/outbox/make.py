"""Wrote the stored outboxes of each format, once: what cameras in the field hold must be delivered byte for byte.

    python -m tests.upstream.outbox.make VERSION

``closed.db`` was closed; ``killed.db`` was copied with its log while in use, as after kill -9.  ``batch_*.bin`` is what
was sent of either, one acknowledged after the other.  For a new format, run it with that format's number; it never
replaces a file.
"""

import gzip
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.message import decode_batch, encode_ack
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from tests.upstream.observing import observed

CAMERA = "c0123456789abcdef01234567"
PATIENCE_S = 20.0


class AcknowledgingTransport:
    """Keeps the bytes of each batch, and acknowledges it."""

    name = "acknowledging"
    losses = 0

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self._acks: list[bytes] = []
        self._changed = threading.Condition()

    def send(self, batch: bytes) -> None:
        sent = decode_batch(batch)
        gaps = tuple((gap.first_seq, gap.last_seq) for gap in sent.gaps)
        with self._changed:
            self.batches.append(batch)
            self._acks.append(
                encode_ack(Ack(sent.camera, sent.incarnation, tuple(seq for seq, _ in sent.observations), gaps))
            )
            self._changed.notify_all()

    def acks(self, timeout_s: float) -> list[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self._acks, min(timeout_s, 0.02))  # so that stopping is quick
            acks, self._acks = self._acks, []
            return acks

    def close(self) -> None:
        pass


def delivered(path: Path) -> list[bytes]:
    """Deliver an outbox until nothing is left; returns the batches sent."""
    outbox, transport = Outbox(path), AcknowledgingTransport()
    delivery = Delivery(outbox, transport, camera=CAMERA, galleries=())  # as cameras did before galleries had names
    delivery.start()
    assert delivery.stop(PATIENCE_S)
    outbox.close()
    return transport.batches


def main() -> None:
    folder = Path(__file__).parent / f"v{sys.argv[1]}"
    folder.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "outbox.db"
        outbox = Outbox(path, max_rows=8)
        outbox.put([observed(track, dim=32) for track in range(1, 5)])
        outbox.put([observed(track, dim=32) for track in range(5, 8)], "int8")
        outbox.put([observed(track, dim=32) for track in range(8, 11)], "fp32")  # drops rows 1 and 2
        outbox.gaps()  # declared, and not yet acknowledged
        outbox.acknowledge(Ack(CAMERA, outbox.incarnation, (5, 6)))
        outbox.lose(3)
        outbox.put([observed(11, dim=32)])
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{scratch}/killed.db{suffix}")
        outbox.close()
        path.rename(f"{scratch}/closed.db")
        for name in ("closed.db", "killed.db", "killed.db-wal"):
            with (folder / f"{name}.gz").open("xb") as file:
                file.write(gzip.compress((Path(scratch) / name).read_bytes(), mtime=0))
        batches = delivered(Path(scratch) / "closed.db")
        assert batches == delivered(Path(scratch) / "killed.db")
    for number, batch in enumerate(batches, 1):
        with (folder / f"batch_{number}.bin").open("xb") as file:
            file.write(batch)


if __name__ == "__main__":
    main()
