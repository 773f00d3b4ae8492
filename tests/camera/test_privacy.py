"""No pixel reaches disk or wire: everything that the agent writes and sends is searched for what it saw."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from reid_edge.crops import resize_into
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.http import HttpServer, gallery_app
from reid_edge.gallery.metrics import GalleryMetrics
from reid_edge.gallery.store import open_store
from tests.camera.street import STILL

#: As many bytes in a row are no coincidence.
RUN = 12
MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WebP": b"WEBPVP8"}

AGENT = """
import sys
written = open(sys.argv[1], "a", buffering=1)
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if (flags or 0) & 3 or (isinstance(mode, str) and set(mode) & set("wax+")):
            written.write(f"{path}\\n")
    if event == "sqlite3.connect":
        written.write(f"{arguments[0]}\\n")
sys.addaudithook(hook)
sys.argv = ["reid-edge", *sys.argv[2:]]
from reid_edge.cli import main
main()
"""


class Wire(threading.Thread):
    """A TCP relay that keeps what passes, both ways."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.passed = bytearray()

    def run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(1 << 16):
            self.passed += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


def pixel_runs(video: Path, input_size: tuple[int, int]) -> set[bytes]:
    """Runs of pixels, as they would stand in a file: rows of crops, and of crops as the network takes them."""
    capture = cv2.VideoCapture(str(video))
    frames = [capture.read()[1] for _ in range(60)]
    runs = set()
    for number, frame in list(enumerate(frames))[STILL + 5 :: 10]:
        for seed in range(3):
            x, y = (number - STILL) * (3 + seed), 5 + seed * 118
            crop = frame[y : y + 110, x : x + 44]
            resized = np.empty((*input_size, 3), np.uint8)
            resize_into(np.ascontiguousarray(crop), resized)
            for picture in (crop, resized):
                for form in (picture, picture[..., ::-1], cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)):
                    for row in form[::7]:
                        flat = row.tobytes()
                        runs.update(flat[start : start + RUN] for start in range(0, len(flat) - RUN, 5))
    return {run for run in runs if len(set(run)) > RUN // 2}  # flat areas are found anywhere


def findings(content: bytes, runs: set[bytes]) -> list[str]:
    """What of a picture is in there."""
    found = [kind for kind, magic in MAGIC.items() if magic in content]
    windows = {content[start : start + RUN] for start in range(len(content) - RUN + 1)}
    return found + ["pixels"] * bool(windows & runs)


@pytest.fixture
def gallery_server(tmp_path):
    store = open_store(f"sqlite:{tmp_path / 'gallery.db'}", create=True)
    collector = Collector(store)
    app = gallery_app(collector, metrics=GalleryMetrics(collector))
    server = HttpServer(app, "http://127.0.0.1:0", insecure=True)
    yield server
    server.close()
    store.close()


@pytest.fixture(scope="module")
def seen(street, session_bundle):
    return pixel_runs(street, session_bundle.manifest.input.size)


@pytest.mark.parametrize("form", ["raw", "jpg", "png"])
def test_the_search_finds_a_picture_where_there_is_one(street, seen, form):
    capture = cv2.VideoCapture(str(street))
    frame = [capture.read()[1] for _ in range(26)][25]
    content = frame.tobytes() if form == "raw" else cv2.imencode(f".{form}", frame)[1].tobytes()
    assert findings(b"before" + content + b"after", seen)
    assert not findings(np.random.default_rng(1).bytes(100_000).replace(b"\xff\xd8\xff", b""), seen)


def test_no_pixel_reaches_disk_or_wire(session_bundle, street, seen, tmp_path, gallery_server):
    home, log = tmp_path / "home", tmp_path / "written.txt"
    for folder in ("home", "tmp", "cwd"):
        (tmp_path / folder).mkdir()
    wire = Wire(("127.0.0.1", gallery_server.port))
    wire.start()
    options = ["--source", str(street), "--upstream", f"http://127.0.0.1:{wire.port}", "--insecure", "--listen", ""]
    done = subprocess.run(
        [sys.executable, "-c", AGENT, str(log), "run", str(session_bundle.path), *options],
        env={**os.environ, "HOME": str(home), "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(home / ".cache")},
        cwd=tmp_path / "cwd",
        capture_output=True,
        timeout=120,
    )
    wire.close()
    assert done.returncode == 0, done.stderr.decode()
    assert len(wire.passed) > 3_000  # features did pass
    assert not findings(bytes(wire.passed), seen)
    assert not findings(done.stdout + done.stderr, seen)

    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert home / ".local/state/reid-edge" in {path.parents[1] for path in written if path.name == "outbox.db"}
    for path in written:
        assert not findings(path.read_bytes(), seen), path
    # Nothing was opened for writing elsewhere.
    outside = [
        line for line in log.read_text().splitlines() if not line.startswith((str(tmp_path), "/dev/null", ":memory:"))
    ]
    assert not [line for line in outside if Path(line).is_absolute() and "__pycache__" not in line], outside


def test_features_are_not_logged(session_bundle, street, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from reid_edge.__main__ import main; main()",
            "run",
            str(session_bundle.path),
            "--config",
            "camera.toml",
        ],
        cwd=(make_debug_settings(tmp_path, street)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "array(" not in done.stderr + done.stdout
    assert len(done.stderr) < 20_000


def make_debug_settings(folder: Path, video: Path) -> Path:
    (folder / "camera.toml").write_text(
        f"""
        [source]
        uri = "{video}"
        [engine]
        max_batch = 2
        [operation]
        log_level = "debug"
        listen = ""
        state_dir = "{folder}/state"
        """,
        encoding="utf-8",
    )
    return folder
