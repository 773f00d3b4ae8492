"""Real sockets and pipes."""

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from reid_edge.camera.detectors import JsonLinesSettings, open_detector, trouble_of
from reid_edge.camera.detectors.jsonlines import Found, JsonLinesDetector, PendingFrames, PendingTimes
from reid_edge.camera.detectors.line_server import LineSplitter
from reid_edge.camera.frames import Detections
from reid_edge.errors import DetectorError
from tests.camera.test_detectors import frame, rows

BOX = [1.0, 2.0, 3.0, 4.0, 0.5]


@pytest.fixture
def detector():
    detector = open_detector(
        JsonLinesSettings(listen="tcp:127.0.0.1:0", wait_ms=5000, max_pending=8, max_line_bytes=1000)
    )
    yield detector
    detector.close()


class Sender:
    def __init__(self, detector: JsonLinesDetector) -> None:
        address = detector.address
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.connect(address)
        self.detector = detector

    def send(self, *lines) -> None:
        for line in lines:
            data = line if isinstance(line, bytes) else json.dumps(line).encode()
            self.socket.sendall(data + b"\n")

    def __enter__(self):
        # Frames wait for their lines only while somebody is sending, so the connection must have been seen.
        assert self.detector._server.sending.wait(5)
        return self

    def __exit__(self, *_error) -> None:
        self.socket.close()


def test_lines_are_matched_by_number_and_a_frame_waits_for_its_line(detector):
    with Sender(detector) as sender:
        threading.Timer(0.05, sender.send, ({"frame": 3, "boxes": [BOX], "camera": "left"},)).start()
        assert rows(detector(frame(3))) == [BOX]
        sender.send({"frame": 5, "boxes": []}, {"frame": 6, "boxes": [BOX[:4]]})
        assert rows(detector(frame(4))) == []  # 5 is there: 4 will not come
        assert rows(detector(frame(5))) == []
        assert rows(detector(frame(6))) == [[1, 2, 3, 4, 1]]
    assert detector.counts.unmatched == 1


def test_lines_are_matched_by_the_nearest_time_within_the_tolerance(detector):
    with Sender(detector) as sender:
        for time_us, x in ((1_000_000, 1), (1_030_000, 2), (1_100_000, 3)):
            sender.send({"captured_us": time_us, "boxes": [[x, 0, 9, 9]]})
        wait_for(lambda: detector.counts.lines == 3)
        got = [rows(detector(frame(captured_us=t))) for t in (1_012_000, 1_018_000, 1_065_000, 1_119_000)]
    assert [[box[0] for box in found] for found in got] == [[1], [2], [], [3]]


def test_fractions_become_pixels_of_the_frame(detector):
    with Sender(detector) as sender:
        sender.send({"frame": 0, "boxes": [[0.5, 0.25, 1, 1, 0.5]], "normalised": True})
        assert rows(detector(frame(0, size_wh=(640, 480)))) == [[320, 120, 640, 480, 0.5]]


MALFORMED = [
    b"no json",
    b"{",
    b"[1, 2]",
    b'{"boxes": []}',
    b'{"frame": -1, "boxes": []}',
    b'{"frame": 1.5, "boxes": []}',
    b'{"frame": 1, "boxes": [[1, 2, 3]]}',
    b'{"frame": 1, "boxes": [[1, 2, 3, 4, 5, 6]]}',
    b'{"frame": 1, "boxes": [["a", 2, 3, 4]]}',
    b'{"frame": 1, "boxes": [[NaN, 2, 3, 4]]}',
    b'{"frame": 99999999999999999999999999, "boxes": []}',
    b"\xff\xfe\x00",
    b"[" * 900,
]


def test_malformed_lines_are_counted_and_skipped(detector):
    with Sender(detector) as sender:
        sender.send(*MALFORMED, b"", b"  ", b"x" * 1001, b"x" * 100_000, {"frame": 1, "boxes": [BOX]})
        assert rows(detector(frame(1))) == [BOX]
    assert detector.counts.malformed == len(MALFORMED) + 2
    assert detector.counts.lines == len(MALFORMED) + 3


def test_numbers_too_large_for_a_box_are_no_crash(detector):
    with Sender(detector) as sender:
        sender.send(b'{"frame": 1, "boxes": [[1e300, 2, 3, 4, 5], [1, 2, 3, 4, 0.5]]}', {"frame": 2, "boxes": [BOX]})
        assert len(detector(frame(1))) <= 2
        assert rows(detector(frame(2))) == [BOX]


def test_a_sender_that_is_far_ahead_waits_and_loses_nothing(detector):
    count = 3000
    with Sender(detector) as sender:
        lines = [{"frame": number, "boxes": [[number, 0, number + 1, 1, 0.5]] * 5} for number in range(count)]
        threading.Thread(target=sender.send, args=lines, daemon=True).start()
        for number in range(count):
            assert rows(detector(frame(number)))[0][0] == number
            assert len(detector._frames._found) <= 8


def test_a_sender_with_wrong_numbers_does_not_block_the_next_one(detector):
    with Sender(detector) as wrong:
        wrong.send(*[{"frame": 10**6 + number, "boxes": []} for number in range(9)])
        wait_for(lambda: detector.counts.lines == 9)
        detector._wait_s = 0.001
        for number in range(9):
            detector(frame(number))
    detector._wait_s = 5
    wait_for(lambda: not detector._server.sending.is_set())
    with Sender(detector) as right:
        right.send({"frame": 100, "boxes": [BOX]})
        assert rows(detector(frame(100))) == [BOX]


def test_lines_that_come_too_late_are_counted(detector):
    with Sender(detector) as sender:
        sender.send({"frame": 5, "boxes": [BOX]})
        detector(frame(5, captured_us=10**12))
        sender.send({"frame": 5, "boxes": [BOX]}, {"captured_us": 10**11, "boxes": [BOX]}, {"frame": 6, "boxes": []})
        detector(frame(6, captured_us=10**12))
    assert detector.counts.late == 2


def test_nobody_is_waited_for_when_nobody_sends(detector):
    began = time.monotonic()
    assert rows(detector(frame(0))) == []
    with Sender(detector) as sender:
        threading.Timer(0.05, sender.socket.shutdown, (socket.SHUT_RDWR,)).start()
        assert rows(detector(frame(1))) == []
    assert time.monotonic() - began < 3


def test_another_sender_may_follow(detector):
    for number in range(3):
        with Sender(detector) as sender:
            sender.socket.sendall(json.dumps({"frame": number, "boxes": [BOX]}).encode())  # without a line break
            sender.socket.shutdown(socket.SHUT_WR)
            assert rows(detector(frame(number))) == [BOX]
        wait_for(lambda: not detector._server.sending.is_set())


def test_a_unix_socket_replaces_one_left_behind_and_is_removed(tmp_path):
    path = tmp_path / "detections"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    config = JsonLinesSettings(listen=f"unix:{path}", wait_ms=5000)
    detector = open_detector(config)
    with Sender(detector) as sender:
        sender.send({"frame": 0, "boxes": [BOX]})
        assert rows(detector(frame(0))) == [BOX]
    with pytest.raises(DetectorError, match="cannot listen"):
        open_detector(config)
    detector.close()
    detector.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("tcp:0.0.0.0:0", "not loopback"),
        ("tcp:192.168.1.1:5", "not loopback"),
        ("tcp:camera:5", "cannot listen"),
        ("tcp:127.0.0.1:x", "cannot listen"),
        ("unix:/no/such/folder/socket", "cannot listen"),
        ("unix:", "expected stdin"),
        ("udp:127.0.0.1:5", "expected stdin"),
    ],
)
def test_places_where_nobody_can_listen_are_refused(listen, message):
    before = threading.active_count()
    with pytest.raises(DetectorError, match=message):
        open_detector(JsonLinesSettings(listen=listen))
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["pipe", "file", "nothing"])
def test_standard_input_may_be_a_pipe_or_a_file(tmp_path, monkeypatch, kind):
    text = "".join(json.dumps({"frame": number, "boxes": [BOX] * (number % 3)}) + "\n" for number in range(20)) + "{"
    path = tmp_path / "lines"
    path.write_text(text)
    if kind == "pipe":
        os.mkfifo(tmp_path / "pipe")
        threading.Thread(target=lambda: (tmp_path / "pipe").write_text(text), daemon=True).start()
    with {"pipe": tmp_path / "pipe", "file": path, "nothing": Path(os.devnull)}[kind].open() as standard_input:
        monkeypatch.setattr(sys, "stdin", standard_input)
        detector = open_detector(JsonLinesSettings(wait_ms=60000, max_pending=4))
        found = [len(detector(frame(number))) for number in range(22)]
        detector.close()
    expected = [number % 3 for number in range(20)] + [0, 0]
    assert (found, detector.counts.malformed) == (([0] * 22, 0) if kind == "nothing" else (expected, 1))


def test_closing_frees_a_sender_that_waits():
    detector = open_detector(JsonLinesSettings(listen="tcp:127.0.0.1:0", max_pending=2))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Sender(detector) as sender:
        sender.send(*[{"frame": number, "boxes": []} for number in range(10)])
        wait_for(lambda: detector.counts.lines == 3)
        began = time.monotonic()
        detector.close()
        assert time.monotonic() - began < 0.9 and not detector._server._thread.is_alive()
    assert len(list(Path("/proc/self/fd").iterdir())) < before


# --- parts


def test_lines_are_cut_whatever_the_chunks(rng):
    text = b"one\n\ntwo two\n" + b"x" * 50 + b"\nthree\n" + b"y" * 51 + b"\nlast"
    for _ in range(200):
        splitter = LineSplitter(50)
        cuts = np.sort(rng.integers(0, len(text), 6)).tolist()
        chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        lines = [line for chunk in chunks for line in splitter.feed(chunk)] + list(splitter.finish())
        assert lines == [b"one", b"", b"two two", b"x" * 50, b"three", None, b"last"]


def test_a_line_without_end_takes_no_memory():
    splitter = LineSplitter(1000)
    for _ in range(10_000):
        assert list(splitter.feed(b"x" * 999)) == []
        assert len(splitter._rest) <= 1000
    assert list(splitter.feed(b"\nnext\n")) == [None, b"next"]


def found(number: float) -> Found:
    return Found(Detections(np.full((1, 4), number, np.float32), np.ones(1, np.float32)), normalised=False)


def test_a_number_far_ahead_does_not_keep_out_those_that_are_due():
    pending = PendingFrames(3, threading.Condition())
    for number in (10**9, 10**10, 0, 1, 2):
        assert pending.add(number, found(number))
    assert [pending.take(number) is not None for number in range(3)] == [True] * 3


def test_of_times_the_oldest_go_when_there_are_too_many(rng):
    pending = PendingTimes(10, 5)
    for time_us in rng.permutation(1000).tolist():
        pending.add(time_us * 10, found(time_us))
    assert pending._times == [time_us * 10 for time_us in range(990, 1000)] and len(pending._found) == 10


def test_the_nearest_time_is_what_a_slow_search_finds(rng):
    pending = PendingTimes(1000, 20)
    times = np.unique(rng.integers(0, 10_000, 300)).tolist()
    for time_us in times:
        pending.add(time_us, found(time_us))
    for wanted in np.sort(rng.integers(0, 10_000, 300)).tolist():
        best = min(times, key=lambda time_us: (abs(time_us - wanted), time_us))
        got = pending.take(wanted)
        assert (got is None) == (abs(best - wanted) > 20)
        assert got is None or got.detections.boxes[0, 0] == best


def test_standard_input_that_has_ended_is_a_dead_detector(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading) as standard_input, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", standard_input)
        detector = open_detector(JsonLinesSettings(wait_ms=1, silent_s=0.05))
        os.write(writing, b'{"frame": 0, "boxes": []}\n')
        wait_for(lambda: detector.counts.lines)
        detector(frame(0))
        os.close(writing)
        wait_for(lambda: not detector._server.sending.is_set())
        assert trouble_of(detector) == ""
        time.sleep(0.1)
        detector(frame(1))
        assert "standard input is closed" in trouble_of(detector)
        detector.close()


FOUND = found(1)


def test_after_the_clock_of_the_frames_was_set_back_lines_are_matched_again():
    pending = PendingTimes(10, 5)
    for time_us in (10**12, 10**12 + 100):
        pending.add(time_us, FOUND)
    assert pending.take(10**12) is FOUND
    assert pending.take(10**6) is None
    assert not pending.has(10**6 + 100)  # what is held is of the clock that was wrong: the line may still come
    assert pending.add(10**6 + 100, FOUND)
    assert pending.has(10**6 + 100) and pending.take(10**6 + 100) is FOUND


def test_lines_of_a_clock_that_was_far_ahead_take_no_room_from_others_and_are_not_waited_for():
    pending = PendingTimes(3, 5)
    pending.take(10**6)
    for year_ahead in range(3):
        pending.add(31 * 10**12 + year_ahead * 100, FOUND)
    assert not pending.has(10**6 + 100)
    for time_us in (10**6 + 100, 10**6 + 200, 10**6 + 300):
        assert pending.add(time_us, FOUND)
    assert pending.take(10**6 + 100) is pending.take(10**6 + 200) is pending.take(10**6 + 300) is FOUND


def wait_for(condition, limit_s=10.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
