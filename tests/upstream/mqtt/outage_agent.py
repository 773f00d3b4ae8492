"""A camera that can be killed: puts features into its outbox and delivers them, until all are delivered.

    python -m tests.upstream.mqtt.outage_agent FOLDER URI CERTS FIRST_TRACK COUNT

After each put has returned, it writes the numbers of the first and the last track into FOLDER/ledger.
"""

import sys
from pathlib import Path

from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.mqtt import MqttTransport
from reid_edge.upstream.outbox import Outbox
from tests.broker import tls_files
from tests.traffic import observation

CAMERA = "camA"
ROWS_PER_PUT = 8


def main(folder: Path, uri: str, certs: Path, first: int, count: int) -> int:
    outbox = Outbox(folder / "outbox.db")
    transport = MqttTransport(uri, camera=CAMERA, tls=tls_files(certs, CAMERA), backoff_s=(0.05, 0.5))
    delivery = Delivery(outbox, transport, camera=CAMERA, resend_s=2.0, most_backoff_s=0.5)
    delivery.start()
    with (folder / "ledger").open("a", encoding="ascii") as ledger:
        for start in range(first, first + count, ROWS_PER_PUT):
            tracks = range(start, min(start + ROWS_PER_PUT, first + count))
            outbox.put([observation(track) for track in tracks])
            print(tracks[0], tracks[-1], file=ledger, flush=True)
    drained = delivery.stop(drain_s=60.0)
    transport.close()
    outbox.close()
    return 0 if drained else 1


if __name__ == "__main__":
    folder, uri, certs, first, count = sys.argv[1:]
    sys.exit(main(Path(folder), uri, Path(certs), int(first), int(count)))
