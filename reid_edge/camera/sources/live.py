"""Read cameras, and open them again whenever they fail."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2

from reid_edge.backoff import exponential_pause_s
from reid_edge.camera.frames import Frame
from reid_edge.camera.sources.address import encoded_address, unencoded_characters
from reid_edge.camera.sources.capture import Thinning, grab, retrieve
from reid_edge.camera.sources.clock import CaptureClock
from reid_edge.camera.sources.ffmpeg_words import as_reason, ffmpeg_words
from reid_edge.camera.sources.settings import GSTREAMER_PREFIX, VIDEO_SUFFIXES, SourceSettings, kind_of
from reid_edge.camera.sources.source import SourceStats
from reid_edge.errors import SourceError
from reid_edge.redaction import hidden, redacted, scrubbed

logger = logging.getLogger(__name__)

#: A connection that lasted longer than this worked: its end is a first failure, not one more in a row.
_GOOD_AFTER_S = 5.0
#: Number of frames in a row that cannot be decoded after which a stream is opened again.
_MAX_UNREADABLE = 100
#: First release of OpenCV whose GStreamer backend accepts timeouts (https://github.com/opencv/opencv/pull/22919);
#: earlier ones fail to open a pipeline that is given any.
_GSTREAMER_TIMEOUTS = (4, 8)


@dataclass(frozen=True)
class Opening:
    """Arguments with which OpenCV opens a live source."""

    target: str | int
    backend: int
    parameters: tuple[int, ...]


class LiveReader:
    """Reads the frames of a camera; their capture time is that of their arrival.

    Args:
        settings: Which camera, and how long to wait for it.
        clock: Gives the capture times.
        stats: Counts connections and failures.

    Raises:
        SourceError: This OpenCV cannot open such a source, or there is no such device.
    """

    def __init__(self, settings: SourceSettings, clock: CaptureClock, stats: SourceStats) -> None:
        self._settings = settings
        self._clock = clock
        self._stats = stats
        self._opening = opening_of(settings)
        self._name = redacted(settings.uri)
        _note_characters(settings.uri, self._name)
        self._thinning = Thinning(settings.stride, settings.max_fps)
        self._index = 0

    def frames(self, stopping: threading.Event) -> Iterator[Frame]:
        """Yield the frames that thinning leaves, until stopped.

        Raises:
            SourceError: The address is that of a file.
        """
        failures = 0  # in a row
        while not stopping.is_set():
            began = time.monotonic()
            yield from self._connection(stopping)
            if stopping.is_set():
                return
            if time.monotonic() - began > _GOOD_AFTER_S and self._stats.connected:
                failures = 0
            self._stats.connected = False
            wait_s = exponential_pause_s(failures, self._settings.backoff_s, self._settings.max_backoff_s)
            failures += 1
            logger.warning("%s: %s; trying again in %.1f s", self._name, self._stats.error, wait_s)
            if stopping.wait(wait_s):
                return
            self._stats.reconnects += 1

    def _connection(self, stopping: threading.Event) -> Iterator[Frame]:
        """Yield the frames of one connection."""
        capture = cv2.VideoCapture()
        try:
            began = time.monotonic()
            with ffmpeg_words() as words:
                is_open = _open(capture, self._opening)
            if not is_open:
                self._stats.error = self._reason(words, time.monotonic() - began)
                return
            self._refuse_file(capture)
            _request_format(capture, self._settings)
            yield from self._grabbed(capture, stopping)
        finally:
            capture.release()

    def _refuse_file(self, capture: cv2.VideoCapture) -> None:
        """Refuse a video file on a web server: it would be played, and its people stored, again and again.

        Cameras give such names too; only a file has a number of frames.

        Raises:
            SourceError: It is one.
        """
        address = re.sub(r"[?#].*", "", str(self._opening.target), flags=re.DOTALL)
        is_video = (
            re.match("https?://", address, re.IGNORECASE) and PurePosixPath(address).suffix.lower() in VIDEO_SUFFIXES
        )
        if is_video and (count := capture.get(cv2.CAP_PROP_FRAME_COUNT)) > 0:
            raise SourceError(
                f"source '{self._name}' is a file of {count:.0f} frames, not a camera. Download the file first, and "
                "give its path."
            )

    def _reason(self, words: list[str], waited_s: float) -> str:
        """Say why the source could not be opened, without passwords."""
        if self._opening.backend == cv2.CAP_V4L2 and (trouble := device_trouble(self._settings.uri)):
            return f"cannot be opened: {trouble}"
        if said := as_reason(words):
            return f"cannot be opened: {scrubbed(hidden(hidden(said, str(self._opening.target)), self._settings.uri))}"
        if waited_s >= self._settings.open_timeout_s:
            return f"cannot be opened: no answer within {self._settings.open_timeout_s:g} s"
        return "cannot be opened"

    def _grabbed(self, capture: cv2.VideoCapture, stopping: threading.Event) -> Iterator[Frame]:
        unreadable = 0
        while not stopping.is_set():
            if not grab(capture):
                self._stats.error = f"ended, or gave nothing for {self._settings.read_timeout_s:g} s"
                return
            captured_us, index = self._clock.now_us(), self._index
            correction_us = self._clock.correction_us
            self._stats.clock_ahead_us, self._stats.clock_found_us = self._clock.ahead_us, self._clock.found_us
            self._index += 1
            if not self._thinning.takes(index, captured_us - correction_us):
                continue
            image = retrieve(capture)
            unreadable = 0 if image is not None else unreadable + 1
            if image is not None:
                self._report_connected(image.shape)
                yield Frame(image, captured_us, index, correction_us)
            elif self._too_many(unreadable):
                return

    def _too_many(self, unreadable: int) -> bool:
        self._stats.unreadable += 1
        self._stats.error = f"gave {unreadable} frames in a row that cannot be decoded"
        return unreadable >= _MAX_UNREADABLE

    def _report_connected(self, shape: tuple[int, ...]) -> None:
        if not self._stats.connected:
            self._stats.connected, self._stats.error = True, None
            logger.info("%s: connected, %dx%d", self._name, shape[1], shape[0])


def opening_of(settings: SourceSettings) -> Opening:
    """Choose the backend and arguments for a live source.

    Raises:
        SourceError: This OpenCV was built without the backend, the pipeline has no ``appsink``, or there is no such
            device.
    """
    kind = kind_of(settings.uri)
    timeouts = (
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        max(1, round(settings.open_timeout_s * 1000)),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        max(1, round(settings.read_timeout_s * 1000)),
    )
    if kind == "gstreamer":
        pipeline = settings.uri.removeprefix(GSTREAMER_PREFIX).strip()
        _check_backend(
            cv2.CAP_GSTREAMER, "GStreamer", "Wheels from PyPI have none; JetPack's and Debian's python3-opencv have."
        )
        _check_pipeline(pipeline)
        return Opening(pipeline, cv2.CAP_GSTREAMER, timeouts if _opencv_version() >= _GSTREAMER_TIMEOUTS else ())
    if kind == "stream":
        _check_backend(cv2.CAP_FFMPEG, "FFmpeg", "Give a GStreamer pipeline instead: gst:uridecodebin uri=… ! …")
        return Opening(encoded_address(settings.uri), cv2.CAP_FFMPEG, timeouts)
    _check_backend(cv2.CAP_V4L2, "V4L2", "Devices are for Linux; elsewhere give a URL.")
    if trouble := device_trouble(settings.uri):
        raise SourceError(f"source {settings.uri}: {trouble}.")
    number = settings.uri.removeprefix("/dev/video")
    return Opening(int(number), cv2.CAP_V4L2, ())


def device_trouble(uri: str) -> str:
    """Say why a device, ``/dev/videoN`` or N, cannot be opened; "" if nothing is known against it."""
    path = Path(f"/dev/video{uri.removeprefix('/dev/video')}")
    if not sys.platform.startswith("linux"):
        return ""
    if not path.exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video[0-9]*"))))
        return f"{path} does not exist; " + (f"there are {there}" if there else "there is no video device here")
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path} may not be used by this user: sudo usermod -aG video USER, and log in again"
    return ""


def _note_characters(uri: str, name: str) -> None:
    characters = unencoded_characters(uri) if kind_of(uri) == "stream" else ""
    if characters:
        ways = ", ".join(f"{character} as %{ord(character):02X}" for character in characters)
        logger.warning("%s: the user or password has %s; write %s in an address", name, " ".join(characters), ways)


def _opencv_version() -> tuple[int, ...]:
    return tuple(int(part) for part in cv2.__version__.split(".")[:2])


def _check_backend(backend: int, name: str, advice: str) -> None:
    if backend not in cv2.videoio_registry.getBackends() or not cv2.videoio_registry.hasBackend(backend):
        raise SourceError(f"this OpenCV ({cv2.__version__}, {cv2.__file__}) was built without {name}. {advice}")


def _check_pipeline(pipeline: str) -> None:
    if "appsink" not in pipeline:
        raise SourceError(
            f"the GStreamer pipeline '{redacted(pipeline)}' must end in an appsink, e.g. "
            "… ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
        )


def _open(capture: cv2.VideoCapture, opening: Opening) -> bool:
    try:
        return capture.open(opening.target, opening.backend, opening.parameters)
    except cv2.error:
        return False


def _request_format(capture: cv2.VideoCapture, settings: SourceSettings) -> None:
    """Request a format from a device; it takes the nearest one that it has."""
    if settings.fourcc is not None:  # first: the sizes that a device offers depend on it
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
    for name, value in ((cv2.CAP_PROP_FRAME_WIDTH, settings.width), (cv2.CAP_PROP_FRAME_HEIGHT, settings.height)):
        if value is not None:
            capture.set(name, value)
