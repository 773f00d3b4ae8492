"""Half an hour of bad luck: a looped video, a real broker with TLS, and random faults.  Nothing may be lost.

    python benchmarks/soak.py BUNDLE VIDEO FOLDER [--minutes 30] [--seed 1]

Runs ``reid-edge run`` → mosquitto (deployed configuration, TLS 1.3, access list) → ``reid-edge gallery serve``
(SQLite), with a relay between agent and broker.  Every few seconds one of these happens: SIGKILL of the broker, of the
agent or of the collector; SIGTERM of the agent; a frozen broker; a network that resets every connection, refuses, or
swallows everything.  The agent writes every put that its outbox has committed to a ledger (``--agent`` below), fsynced
after the commit.  In the end the faults stop, and after a drain every observation of the ledger must be in the gallery,
once.

Writes ``FOLDER/soak.log``; exits 1 if anything is lost or stored twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

CAMERA = "camA"


def agent(ledger: str, arguments: list[str]) -> None:
    """``reid-edge run`` with a ledger of committed puts: one line ``epoch first last``."""
    from reid_edge.cli import main as reid_edge
    from reid_edge.upstream.outbox import Outbox

    put, file = Outbox.put, Path(ledger).open("a", buffering=1, encoding="ascii")  # noqa: SIM115 - lives as long as we do

    def put_and_tell(outbox, observations, encoding="fp16"):
        put(outbox, observations, encoding)
        if observations:
            file.write(f"{outbox.incarnation} {outbox.last_seq - len(observations) + 1} {outbox.last_seq}\n")
            os.fsync(file.fileno())

    Outbox.put = put_and_tell
    sys.argv = ["reid-edge", "run", *arguments]
    reid_edge()


class Relay(threading.Thread):
    """TCP to the broker, which can be made to misbehave: ``pass``, ``refuse``, ``swallow``."""

    def __init__(self, target_port: int) -> None:
        super().__init__(daemon=True)
        self.mode = "pass"
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()

    def run(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if self.mode == "refuse":
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.mode != "swallow":
                    sink.sendall(data)
        for end in (source, sink):
            end.close()
            self._open.discard(end)

    def reset(self) -> None:
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)


class Soak:
    def __init__(self, bundle: Path, video: Path, folder: Path, seed: int) -> None:
        from tests.broker import Broker, make_all_certs

        folder.mkdir(parents=True)
        self.folder = folder
        self.luck = random.Random(seed)
        self.certs = make_all_certs(folder / "certs")
        self.broker = Broker(folder / "broker", self.certs).start()
        self.relay = Relay(self.broker.port)
        self.relay.start()
        self.log = (folder / "soak.log").open("a", buffering=1, encoding="utf-8")
        self.faults: Counter[str] = Counter()
        self.peak_rss_mb: Counter[str] = Counter()
        self.began = time.monotonic()
        self.settings = folder / "camera.toml"
        self.settings.write_text(
            f"""
            [camera]
            name = "{CAMERA}"
            [source]
            uri = "{video}"
            realtime = true
            loop = true
            [engine]
            bundle = "{bundle}"
            engine = "openvino"
            threads = 1
            [tracklet]
            every_s = 2.0
            [upstream]
            uri = "mqtts://localhost:{self.relay.port}"
            resend_s = 5.0
            [upstream.tls]
            ca = "{self.certs}/ca.crt"
            cert = "{self.certs}/{CAMERA}.crt"
            key = "{self.certs}/{CAMERA}.key"
            [operation]
            state_dir = "{folder}/state"
            listen = ""
            log_format = "json"
            """,
            encoding="utf-8",
        )
        self.start_collector()
        self.start_agent()

    def start_agent(self) -> None:
        ledger = str(self.folder / "ledger.txt")
        command = [sys.executable, __file__, "--agent", ledger, "--config", str(self.settings)]
        self.agent = self._start(command, "agent")

    def start_collector(self) -> None:
        certs = self.certs
        command = [
            *(sys.executable, "-c", "from reid_edge.__main__ import main; main()", "gallery", "serve"),
            *(f"sqlite:{self.folder}/gallery.db", "--mqtt", f"mqtts://localhost:{self.broker.port}"),
            *("--ca", f"{certs}/ca.crt", "--cert", f"{certs}/collector.crt", "--key", f"{certs}/collector.key"),
        ]
        self.collector = self._start(command, "collector")

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output)

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.began:8.1f} s  {text}"
        print(line, flush=True)
        self.log.write(line + "\n")

    def fault(self) -> None:
        name = self.luck.choice(
            ["kill broker", "kill agent", "kill collector", "stop agent", "freeze broker", "reset", "refuse", "swallow"]
        )
        pause = self.luck.uniform(0, 15)
        self.faults[name] += 1
        self.say(f"{name} for {pause:.1f} s; {self.state()}")
        match name:
            case "kill broker":
                self.broker.kill()
                time.sleep(pause)
                self.broker.start()
            case "kill agent" | "stop agent":
                self.agent.send_signal(signal.SIGKILL if name == "kill agent" else signal.SIGTERM)
                self.agent.wait(60)
                time.sleep(pause / 3)
                self.start_agent()
            case "kill collector":
                self.collector.kill()
                self.collector.wait()
                time.sleep(pause)
                self.start_collector()
            case "freeze broker":
                self.broker.freeze()
                time.sleep(pause)
                self.broker.thaw()
            case "reset":
                self.relay.reset()
            case "refuse" | "swallow":
                self.relay.mode = name
                if name == "refuse":
                    self.relay.reset()
                time.sleep(pause)
                self.relay.mode = "pass"
                self.relay.reset()

    def committed(self) -> set[tuple[str, int]]:
        ledger = self.folder / "ledger.txt"
        found = set()
        for line in ledger.read_text(encoding="ascii").splitlines() if ledger.exists() else []:
            with contextlib.suppress(ValueError):  # the last line of a life that was killed
                epoch, first, last = line.split()
                found |= {(epoch, seq) for seq in range(int(first), int(last) + 1)}
        return found

    def stored(self) -> Counter[tuple[str, int]]:
        path = self.folder / "gallery.db"
        if not path.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
            return Counter(db.execute("SELECT epoch, seq FROM observations"))
        return Counter()

    def repeated(self) -> int:
        """Observations that are in the gallery under two numbers."""
        query = """SELECT total(n - 1) FROM (SELECT count(*) n FROM observations
                   GROUP BY track, captured_us, first_us, last_us, crops, final)"""
        with contextlib.closing(sqlite3.connect(self.folder / "gallery.db")) as db:
            return int(db.execute(query).fetchone()[0])

    def state(self) -> str:
        for name, process in (("agent", self.agent), ("collector", self.collector)):
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                rss_mb = int(status.split("VmRSS:")[1].split()[0]) // 1024
                self.peak_rss_mb[name] = max(self.peak_rss_mb[name], rss_mb)
        return f"{len(self.committed())} committed, {len(self.stored())} stored, RSS {dict(self.peak_rss_mb)} MB"

    def run(self, minutes: float, settle_s: float) -> bool:
        end = self.began + 60 * minutes
        while time.monotonic() < end:
            time.sleep(self.luck.uniform(5, 30))
            assert self.agent.poll() is None, "the agent ended by itself"
            assert self.collector.poll() is None, "the collector ended by itself"
            self.fault()
        self.say(f"faults end: {dict(self.faults)}; {self.state()}")
        time.sleep(settle_s)
        self.agent.send_signal(signal.SIGTERM)
        self.agent.wait(60)
        committed, stored = self.committed(), self.stored()
        lost, twice = committed - set(stored), self.repeated() + sum(count - 1 for count in stored.values())
        self.say(
            f"{sum(self.faults.values())} faults; {len(committed)} observations committed by the outbox, "
            f"{len(stored)} stored, {len(lost)} lost, {twice} stored twice; peak RSS {dict(self.peak_rss_mb)} MB"
        )
        return not lost and not twice and len(committed) > 0

    def close(self) -> None:
        for process in (self.agent, self.collector):
            process.kill()
        self.broker.stop()


def main() -> None:
    if "--agent" in sys.argv:
        return agent(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "video", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle-s", type=float, default=120, help="without faults, at the end")
    options = parser.parse_args()
    soak = Soak(options.bundle.resolve(), options.video.resolve(), options.folder.resolve(), options.seed)
    try:
        good = soak.run(options.minutes, options.settle_s)
    finally:
        soak.close()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
