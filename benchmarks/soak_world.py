"""The soak's world: cameras, a broker, galleries, the network between them, their disks and their clocks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.broker import Broker, free_port, make_all_certs
from tests.faults.clocks import PROGRAM, Clock

SOAK = Path(__file__).with_name("soak.py")


class Relay(threading.Thread):
    """TCP to a server, which can be made to misbehave: ``pass``, ``refuse``, ``swallow``; ``target`` may change."""

    def __init__(self, target: int) -> None:
        super().__init__(daemon=True)
        self.mode = "pass"
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self.start()

    def run(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if self.mode == "refuse":
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
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
        """Break every connection."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)


class Disk:
    """A folder on a disk of its own that can be filled and made read-only, where file systems may be mounted."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
        self.is_own = subprocess.run(mount, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                try:
                    ballast.write(bytes(1 << 16))
                except OSError:
                    ballast.write(bytes(1 << 12))
                    raise

    def free(self) -> None:
        """Give the space back."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def remount(self, how: str) -> None:
        """``ro`` or ``rw``; no process may have a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    def close(self) -> None:
        """Copy the files beside the mount, and unmount it."""
        if self.is_own:
            shutil.copytree(self.folder, self.folder.with_name(self.folder.name + "-end"))
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


@dataclass
class Process:
    """A program that is started, ended and started again.

    Attributes:
        name: Of its log.
        folder: Of its log.
        command: What is run.
        clock: Its clock.
        peak_rss_mb: Most memory that was seen.
    """

    name: str
    folder: Path
    command: list[str]
    clock: Clock
    cache: Path | None = None
    peak_rss_mb: int = 0
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it."""
        environment = os.environ | self.clock.environment
        if self.cache:
            environment["XDG_CACHE_HOME"] = str(self.cache)
        with (self.folder / f"{self.name}.log").open("ab") as output:
            self._running = subprocess.Popen(self.command, stdout=output, stderr=output, env=environment)

    @property
    def ended(self) -> int | None:
        """Its exit code; None while it runs, or if it was never started."""
        return self._running.poll() if self._running else None

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._running is not None and self._running.poll() is None

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self._running:
            self._running.send_signal(number)

    def end(self, number: int = signal.SIGTERM, *, within_s: float = 60) -> int:
        """End it by a signal, and return the exit code."""
        if not self._running:
            return 0
        self.send(number)
        code = self._running.wait(within_s)
        self._running = None
        return code

    def look(self) -> None:
        """Note the memory that it has now."""
        with contextlib.suppress(OSError, IndexError, AttributeError):
            status = Path(f"/proc/{self._running.pid}/status").read_text(encoding="ascii")  # type: ignore[union-attr]
            self.peak_rss_mb = max(self.peak_rss_mb, int(status.split("VmRSS:")[1].split()[0]) // 1024)


class Camera(Process):
    """An agent with its outbox, its ledger and its compiled models."""

    def __init__(
        self, name: str, folder: Path, *, uri: str, certs: Path, video: Path, bundle: Path, log: str = ""
    ) -> None:
        log = log or name
        self.camera = name
        self.disk = Disk(folder / f"disk-{log}", 64)
        self.state = self.disk.folder / "state"
        self.ledger = folder / f"{log}.ledger"
        settings = folder / f"{log}.toml"
        settings.write_text(_SETTINGS.format(**locals(), state=self.state), encoding="utf-8")
        command = [sys.executable, str(SOAK), "--agent", str(self.ledger), "--config", str(settings)]
        super().__init__(log, folder, command, Clock(folder / f"{log}.clock"), folder / f"cache-{log}")

    def outbox_files(self) -> list[Path]:
        """Files of the outbox that a disk may damage, the larger ones more often."""
        files = [path for path in self.state.glob("outbox*") if not ("-shm" in path.name or ".corrupt" in path.name)]
        return [path for path in files if path.is_file() and path.stat().st_size]


_SETTINGS = """
[camera]
name = "{name}"
[source]
uri = "{video}"
realtime = true
loop = true
max_fps = 5.0
[engine]
bundle = "{bundle}"
engine = "openvino"
threads = 1
[tracklet]
early_s = 1.0
every_s = 2.0
[upstream]
uri = "{uri}"
resend_s = 5.0
max_mb = 8
keep_acknowledged_hours = 1.0
[upstream.tls]
ca = "{certs}/ca.crt"
cert = "{certs}/{name}.crt"
key = "{certs}/{name}.key"
[operation]
state_dir = "{state}"
listen = ""
log_format = "json"
"""


class Gallery(Process):
    """A gallery's server, over MQTT and HTTP, with a SQLite file."""

    def __init__(self, name: str, folder: Path, *, mqtt: str, listen: int | None, certs: Path, disk: Disk) -> None:
        self.disk = disk
        self.path = disk.folder / f"{name}.db"
        self.store = f"sqlite:{self.path}"
        role = "gallery" if listen else "collector"
        command = [
            *(sys.executable, "-c", PROGRAM, "gallery", "serve", self.store, "--mqtt", mqtt, "--name", name),
            *("--ca", f"{certs}/ca.crt", "--cert", f"{certs}/{role}.crt", "--key", f"{certs}/{role}.key"),
            *(("--listen", f"https://127.0.0.1:{listen}") if listen else ()),
        ]
        super().__init__(f"{name}-gallery", folder, command, Clock(folder / f"{name}-gallery.clock"))

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the gallery's commands on its store."""
        command = [sys.executable, "-m", "reid_edge", "gallery", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)


class World:
    """Two cameras, one by MQTT and one by HTTP; a third under the first one's name; two galleries."""

    def __init__(self, bundle: Path, video: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.certs = make_all_certs(folder / "certs")
        self.broker = Broker(folder / "broker", self.certs).start()
        self.http_port = free_port()
        self.mqtt_relay, self.http_relay = Relay(self.broker.port), Relay(self.http_port)
        mqtt = f"mqtts://localhost:{self.mqtt_relay.port}"
        common = {"certs": self.certs, "video": video, "bundle": bundle}
        self.by_mqtt = Camera("camA", folder, uri=mqtt, **common)
        self.by_http = Camera("camB", folder, uri=f"https://localhost:{self.http_relay.port}", **common)
        self.twin = Camera("camA", folder, uri=mqtt, log="camA-twin", **common)
        direct = f"mqtts://localhost:{self.broker.port}"
        self.gallery_disk = Disk(folder / "disk-gallery", 128)
        self.gallery = Gallery(
            "gallery", folder, mqtt=direct, listen=self.http_port, certs=self.certs, disk=self.gallery_disk
        )
        self.other = Gallery(
            "other", folder, mqtt=direct, listen=None, certs=self.certs, disk=Disk(folder / "other", 64)
        )
        self.everyone: list[Process] = [self.by_mqtt, self.by_http, self.twin, self.gallery, self.other]

    @property
    def cameras(self) -> list[Camera]:
        """The two cameras that run all the time."""
        return [self.by_mqtt, self.by_http]

    def set_broker_limit(self, max_packet_size: int) -> None:
        """Write another limit into the broker's configuration; it holds from its next start."""
        path = self.folder / "broker" / "mosquitto.conf"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(r"^max_packet_size .*$", f"max_packet_size {max_packet_size}", text, flags=re.M), encoding="utf-8"
        )

    def gallery_tls(self) -> ssl.SSLContext:
        """Return the gallery's side of TLS, for a server that only looks like it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certs / "gallery.crt", self.certs / "gallery.key")
        return context

    def wait_for_gallery(self, within_s: float = 30) -> None:
        """Wait until the gallery's server accepts connections.

        Raises:
            AssertionError: It does not, or has ended.
        """
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            assert self.gallery.runs, f"the gallery ended by itself: {self.gallery.ended}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.http_port), 1):
                return
            time.sleep(0.1)
        raise AssertionError(f"the gallery does not listen after {within_s} s")

    def close(self) -> None:
        """End everything."""
        for process in self.everyone:
            process.end(signal.SIGKILL)
            process.disk.close()  # type: ignore[attr-defined]
        self.broker.stop()
