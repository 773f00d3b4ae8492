"""A real mosquitto with the deployed configuration: only its port and paths are changed."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from reid_edge.upstream.tls import TlsFiles

DEPLOYED = Path(__file__).parent.parent / "deploy" / "mosquitto"
HOSTS = ("localhost", "127.0.0.1")
CAMERAS = ("camA", "camB")


@functools.cache
def mosquitto_path() -> str | None:
    return shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")


def make_certs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = [str(DEPLOYED / "make_certs.sh"), str(folder), *arguments]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def make_all_certs(folder: Path) -> Path:
    """An authority, broker, gallery, collector, the cameras camA and camB."""
    for arguments in (["ca"], ["broker", *HOSTS], ["gallery", *HOSTS], ["collector"], ["camera", *CAMERAS]):
        done = make_certs(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def tls_files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(ca=folder / "ca.crt", cert=folder / f"{name}.crt", key=folder / f"{name}.key")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def deployed_configuration(folder: Path, certs: Path, port: int) -> str:
    """mosquitto.conf as deployed, on a free port of loopback, with files where the test put them."""
    text = (DEPLOYED / "mosquitto.conf").read_text(encoding="utf-8")
    shutil.copy(DEPLOYED / "acl", folder / "acl")
    text = text.replace("listener 8883", f"listener {port} 127.0.0.1")
    text = text.replace("/etc/mosquitto/reid-edge/acl", str(folder / "acl"))
    return text.replace("/etc/mosquitto/reid-edge/", f"{certs}/")


def plain_configuration(port: int) -> str:
    """The deployed limits without TLS and access list, to measure what those two cost."""
    text = (DEPLOYED / "mosquitto.conf").read_text(encoding="utf-8")
    start, end = text.index("listener 8883"), text.index("# Nothing on disk")
    return f"{text[:start]}listener {port} 127.0.0.1\nallow_anonymous true\n{text[end:]}"


class Broker:
    """A mosquitto that can be killed and started again on the same port."""

    def __init__(
        self,
        folder: Path,
        certs: Path | None = None,
        *,
        crl: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        if mosquitto_path() is None:
            pytest.skip("mosquitto is not installed: no broker here")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.folder = folder
        self.log = folder / "mosquitto.log"
        text = deployed_configuration(folder, certs, self.port) if certs else plain_configuration(self.port)
        if crl is not None:
            text = text.replace(f"#crlfile {certs}/revoked.crl", f"crlfile {crl}")
        for name, value in (options or {}).items():
            text = re.sub(rf"^{name} .*$", f"{name} {value}", text, flags=re.MULTILINE)
        # As root, mosquitto would become its own user, who may not read the test's files.
        (folder / "mosquitto.conf").write_text(f"user root\n{text}", encoding="utf-8")
        self.uri = f"mqtts://localhost:{self.port}" if certs else f"mqtt://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        with self.log.open("ab") as log:
            command = [str(mosquitto_path()), "-c", str(self.folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except ConnectionRefusedError:
                time.sleep(0.005)
        raise AssertionError(f"mosquitto did not start: {self.log.read_text(encoding='utf-8')}")

    def kill(self) -> None:
        """End at once, as in a power cut."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Stop answering while connections stay, as a network does that swallows everything."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the processor time used so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self.thaw()
            self._process.wait(timeout=10)
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
