"""A gallery that can be killed: stores what comes from the broker.

python -m tests.upstream.mqtt.outage_collector STORE URI CERTS
"""

import sys
import threading
from pathlib import Path

from reid_edge.gallery.collector import Collector
from reid_edge.gallery.mqtt import MqttCollector
from reid_edge.gallery.store import open_store
from tests.broker import tls_files


def main(store: str, uri: str, certs: Path) -> None:
    collector = Collector(open_store(store, create=True))
    MqttCollector(collector, uri, tls=tls_files(certs, "collector"), backoff_s=(0.05, 0.5))
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
