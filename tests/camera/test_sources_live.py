"""A real MJPEG camera on loopback, OpenCV's real client."""

import base64
import functools
import logging
import socket
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from reid_edge.camera.sources import SourceSettings, open_source
from reid_edge.camera.sources.address import encoded_address, unencoded_characters
from reid_edge.errors import SourceError
from tests.camera.mjpeg import MjpegCamera
from tests.camera.test_sources import write_video

pytestmark = pytest.mark.skipif("'FFMPEG:                      NO' in __import__('cv2').getBuildInformation()")


@pytest.fixture
def camera():
    camera = MjpegCamera()
    yield camera
    camera.hangs.clear()
    camera.kill()


def quick(uri: str, **options) -> SourceSettings:
    return SourceSettings(
        **{"uri": uri, "backoff_s": 0.02, "max_backoff_s": 0.1, "open_timeout_s": 1.0, "read_timeout_s": 0.5} | options
    )


def wait_for(condition, limit_s=10.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_frames_come_with_growing_numbers_and_the_time_of_day(camera):
    with open_source(quick(camera.url)) as source:
        frames = [source.read(10) for _ in range(5)]
        assert source.live and source.stats.connected
    now_us = time.time_ns() // 1000
    assert all(frame.image.shape == (120, 160, 3) for frame in frames)
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert now_us - 60_000_000 < frames[0].captured_us < frames[-1].captured_us <= now_us


def test_whoever_is_slow_gets_the_latest_frame_and_the_others_are_counted(camera):
    with open_source(quick(camera.url)) as source:
        first = source.read(10)
        before = source.stats.dropped
        wait_for(lambda: source.stats.dropped - before >= 10)
        second = source.read(10)
        assert second.index - first.index >= 10
        assert source.stats.frames - source.stats.dropped <= 4  # two read, one waiting, one on its way


def test_a_camera_that_is_killed_comes_back(camera, caplog):
    caplog.set_level(logging.INFO)
    secret = camera.url.replace("http://", "http://admin:s3cret@") + "?password=s3cret"
    with open_source(quick(secret)) as source:
        before = source.read(10)
        camera.kill()
        wait_for(lambda: source.stats.reconnects >= 3)
        assert not source.stats.connected and "cannot be opened" in source.stats.error
        while source.read(0) is not None:
            pass
        camera.start()
        after = source.read(10)
        assert after.index > before.index and after.captured_us > before.captured_us
        wait_for(lambda: source.stats.connected)
        assert source.stats.error is None
    assert "trying again in" in caplog.text and caplog.text.count("connected, 160x120") == 2
    assert "s3cret" not in caplog.text and "admin" not in caplog.text


def test_a_stream_that_hangs_is_noticed_and_opened_again(camera):
    with open_source(quick(camera.url)) as source:
        source.read(10)
        camera.hangs.set()
        wait_for(lambda: not source.stats.connected)
        assert "gave nothing for 0.5 s" in source.stats.error and source.stats.silent_s > 0.4
        camera.hangs.clear()
        wait_for(lambda: source.stats.connected)
    assert camera.connections >= 2


def test_a_port_that_never_answers_is_given_up_and_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/video"
        with open_source(quick(url, open_timeout_s=0.2)) as source:
            assert source.read(0.01) is None and not source.ended
            wait_for(lambda: source.stats.reconnects >= 2)


def test_nobody_there_is_no_error_and_is_tried_without_end():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with open_source(quick(f"http://127.0.0.1:{free}/video", backoff_s=0.001, max_backoff_s=0.002)) as source:
        wait_for(lambda: source.stats.reconnects >= 5)
        assert source.stats.frames == 0 and not source.ended


def test_stop_returns_while_the_capture_hangs_in_a_read(camera):
    source = open_source(quick(camera.url, read_timeout_s=3.0))
    source.read(10)
    camera.hangs.set()
    time.sleep(0.05)
    waiting = threading.Thread(target=lambda: list(source))
    waiting.start()
    began = time.monotonic()
    source.stop()
    assert time.monotonic() - began < 1.0
    waiting.join(1.0)
    assert not waiting.is_alive() and source.ended


def test_stop_returns_while_waiting_for_the_next_attempt():
    source = open_source(quick("http://127.0.0.1:1/video", backoff_s=60, max_backoff_s=60))
    wait_for(lambda: source.stats.error is not None)
    began = time.monotonic()
    source.stop()
    assert time.monotonic() - began < 0.4


def test_a_rate_limit_thins_a_camera(camera):
    with open_source(quick(camera.url, max_fps=10)) as source:
        times = [source.read(10).captured_us for _ in range(4)]
    assert (times[-1] - times[0]) / 3 == pytest.approx(100_000, rel=0.35)


def test_a_camera_may_change_its_resolution_when_it_comes_back(camera):
    with open_source(quick(camera.url)) as source:
        assert source.read(10).image.shape == (120, 160, 3)
        camera.kill()
        wait_for(lambda: not source.stats.connected)
        source.read(0)
        camera.size_wh = (320, 240)
        camera.start()
        assert source.read(10).image.shape == (240, 320, 3)


def test_a_process_ends_while_a_capture_hangs(camera):
    program = (
        "from reid_edge.camera.sources import *\n"
        f"source = open_source(SourceSettings(uri={camera.url.replace('://', '://u:s3cret@')!r}, read_timeout_s=60))\n"
        "source.read(10); print('captured', flush=True); input(); source.stop(); print('stopped', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "captured\n"
        camera.hangs.set()
        time.sleep(0.1)
        output, errors = process.communicate("\n", timeout=20)
    assert (process.returncode, output) == (0, "stopped\n")
    assert "s3cret" not in errors


def test_a_process_that_forgets_to_stop_ends_in_order(camera):
    program = (
        "from reid_edge.camera.sources import *\n"
        f"first = open_source(SourceSettings(uri={camera.url!r})); first.read(10)\n"
        "open_source(SourceSettings(uri='rtsp://127.0.0.1:1/x'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


class RtspDoor:
    """Asks for a user by RTSP, notes what is given, and then answers with a status."""

    def __init__(self, status: str) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._status = status
        self.port = self._server.getsockname()[1]
        self.users: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self._talk(stream)

    def _talk(self, stream) -> None:
        while line := stream.readline().decode():
            fields = {}
            while field := stream.readline().decode().strip():
                name, _, value = field.partition(":")
                fields[name.lower()] = value.strip()
            given = fields.get("authorization", "")
            status = "401 Unauthorized"
            if line.startswith("OPTIONS"):
                status = "200 OK"
            elif given:
                self.users.append(base64.b64decode(given.removeprefix("Basic ")).decode())
                status = self._status
            answer = f'RTSP/1.0 {status}\r\nCSeq: {fields["cseq"]}\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
            stream.write(answer.encode())
            stream.flush()

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def door():
    door = RtspDoor("404 Not Found")
    yield door
    door.close()


@pytest.mark.parametrize("password", ["Sup3r#Secr3t", "1234#56", "a/b?c#d", "with blank", "at@sign#x", "plain", "ä%23"])
def test_a_password_is_taken_as_its_owner_types_it(door, password, caplog):
    with open_source(quick(f"rtsp://admin:{password}@127.0.0.1:{door.port}/ch1")) as source:
        wait_for(lambda: door.users and source.stats.error)
        error = source.stats.error
    assert door.users[0] == f"admin:{unquote(password)}"
    assert "404" in error and "Not Found" in error
    assert password not in caplog.text + error
    assert ("# as %23" in caplog.text) == ("#" in password)


def test_an_address_that_can_be_read_is_left_as_it_is():
    for uri in (
        "rtsp://cam/ch1@main",
        "rtsp://cam:554/live?user=a@b&x=1",
        "rtsp://u:p@cam/path#x@y",
        "http://[::1]:80/a@b",
    ):
        assert encoded_address(uri) == uri and unencoded_characters(uri) == ""


def test_the_reason_of_ffmpeg_is_told_and_printed_nowhere_else(capfd):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with open_source(quick(f"rtsp://u:s3cret@127.0.0.1:{free}/x")) as source:
        wait_for(lambda: source.stats.error)
        error = source.stats.error
    assert "Connection refused" in error and "s3cret" not in error
    assert "refused" not in capfd.readouterr().err


def test_a_video_file_on_a_web_server_is_refused_and_a_stream_of_such_a_name_is_not(camera, tmp_path):
    write_video(tmp_path / "seen.avi", 20)
    serving = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/seen.avi?key=s3cret"
        told = pytest.raises(SourceError, match=r"is a file of 20 frames, not a camera\. Download the file")
        with open_source(quick(address)) as source, told as refused:
            source.read(10)
        server.shutdown()
    assert "s3cret" not in str(refused.value)
    with open_source(quick(camera.url.replace(".mjpg", ".mp4"))) as source:
        assert source.read(10) is not None


def test_a_device_that_is_not_there_is_refused_at_once_and_one_that_was_unplugged_is_waited_for(monkeypatch):
    with pytest.raises(SourceError, match="/dev/video77 does not exist"):
        open_source(SourceSettings(uri="/dev/video77"))
    with monkeypatch.context() as plugged:
        plugged.setattr("reid_edge.camera.sources.live.device_trouble", lambda _uri: "")
        source = open_source(quick("77"))
    with source:
        wait_for(lambda: source.stats.reconnects >= 2)
        assert "does not exist" in source.stats.error
