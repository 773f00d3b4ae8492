"""Random HTTP requests against a real ``gallery serve``: what is answered, and what of them stays.

    python benchmarks/hostile_http.py --seed 15 --requests 4000

Each request has a random method, path, version and framing, a real batch or random bytes as its body, and up to six
random changes; a third is half closed.  Printed: how many got which answer, the server's memory and descriptors before
and after, tracebacks in its log, and whether it then takes a batch.  The suite has the short form
(``tests/gallery/test_http_hostile.py``).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reid_edge.upstream.http import HttpTransport
from tests.broker import free_port
from tests.traffic import batch

METHODS = ("POST", "GET", "PUT", "HEAD", "OPTIONS", "TRACE", "X" * 99)
PATHS = ("/v1/batches", "/healthz", "/metrics", "*", "http://x/", "/%ff%00")
#: Longest stage of a connection that nobody ends, and a margin.
PATIENCE_S = 15.0


class Served:
    """A gallery in plain text on loopback, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "log"
        command = [sys.executable, "-m", "reid_edge", "gallery", "serve", f"sqlite:{folder}/gallery.db"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--listen", f"http://127.0.0.1:{self.port}", "--insecure"],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise SystemExit(self.log.read_text())

    def memory_mb(self) -> int:
        """Return the resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) // 1024 if found else 0

    def descriptors(self) -> int:
        """Return the number of open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - one may vanish meanwhile


def random_request(chance: random.Random, body: bytes) -> bytes:
    """Return a request that is more or less one."""
    framing = chance.choice(
        (
            f"content-length: {len(body)}",
            "transfer-encoding: chunked",
            f"content-length: {chance.randint(0, 10**7)}",
            "content-length: -1",
            "content-length: 1\r\ncontent-length: 2",
            f"expect: 100-continue\r\ncontent-length: {len(body)}",
            "upgrade: websocket\r\nconnection: upgrade",
            "x: " + "y" * chance.randint(0, 70_000),
        )
    )
    line = f"{chance.choice(METHODS)} {chance.choice(PATHS)} HTTP/1.{chance.randint(0, 1)}"
    head = f"{line}\r\nhost: localhost\r\n{framing}\r\n\r\n".encode()
    data = bytearray(head + (body if chance.random() < 0.5 else chance.randbytes(chance.randint(0, 5000))))
    for _ in range(chance.randint(0, 6)):
        at = chance.randrange(len(data))
        data[at : at + chance.choice((0, 1, 3, 50))] = chance.randbytes(chance.choice((0, 1, 2, 9)))
    return bytes(data) * chance.choice((1, 1, 1, 2))


def outcome_of(port: int, data: bytes, chance: random.Random) -> str:
    """Send a request and return the status of its answer, or what happened instead."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.settimeout(0.05 if chance.random() < 0.9 else 1.0)
            peer.sendall(data)
            if chance.random() < 0.3:
                peer.shutdown(socket.SHUT_WR)
            answer = peer.recv(4096)
            return answer[9:12].decode(errors="replace") if answer else "closed"
    except TimeoutError:
        return "no answer yet"
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """Run and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--requests", type=int, default=4000)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder))
        before = {"memory_mb": served.memory_mb(), "descriptors": served.descriptors()}
        body = batch("camA", *range(1, 9))
        outcomes = collections.Counter(
            outcome_of(served.port, random_request(chance, body), chance) for _ in range(options.requests)
        )
        memory_mb = served.memory_mb()
        time.sleep(PATIENCE_S)
        after = {"memory_mb": memory_mb, "descriptors": served.descriptors()}
        HttpTransport(f"http://127.0.0.1:{served.port}", insecure=True).send(batch("camA", 999))
        served.process.terminate()
        served.process.wait(30)
        log = served.log.read_text()
    figures = {"outcomes": outcomes, "before": before, "after": after}
    print(json.dumps({**figures, "log_lines": len(log.splitlines()), "tracebacks": log.count("Traceback")}))


if __name__ == "__main__":
    main()
