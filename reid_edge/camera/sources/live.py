"""Cameras: opened again for ever when they fail."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2

from reid_edge.camera.frames import Frame
from reid_edge.camera.sources.capture import CaptureClock, Thinning, grab, retrieve
from reid_edge.camera.sources.settings import GSTREAMER_PREFIX, SourceSettings, kind_of
from reid_edge.camera.sources.source import SourceStats
from reid_edge.errors import SourceError
from reid_edge.redaction import redacted

logger = logging.getLogger(__name__)

#: A stream that lasted so long was a good one: its end is a new failure, not one more in a row.
_GOOD_AFTER_S = 5.0
#: After so many frames on end that cannot be decoded a stream is opened again.
_MAX_UNREADABLE = 100
#: OpenCV's GStreamer knows timeouts since this release (https://github.com/opencv/opencv/pull/22919), and before it
#: opens nothing that is given any.
_GSTREAMER_TIMEOUTS = (4, 8)


@dataclass(frozen=True)
class Opening:
    """How OpenCV opens a live source."""

    target: str | int
    backend: int
    parameters: tuple[int, ...]


class Backoff:
    """Waits that double, with jitter, so that a hundred cameras do not come back at the same moment."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def reset(self) -> None:
        """The next failure is the first."""
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure: between half of the doubled wait and all of it."""
        doubled_s = self._first_s * 2.0 ** min(self._failures, 30)
        self._failures += 1
        return min(doubled_s, self._longest_s) * random.uniform(0.5, 1)  # noqa: S311 - nothing secret


class LiveReader:
    """Frames of a camera, stamped as they arrive.

    Args:
        settings: Which, and how long to wait for it.
        clock: Stamps the frames.
        stats: Told about connections and failures.

    Raises:
        SourceError: This OpenCV can never open it.
    """

    def __init__(self, settings: SourceSettings, clock: CaptureClock, stats: SourceStats) -> None:
        self._settings = settings
        self._clock = clock
        self._stats = stats
        self._opening = opening_of(settings)
        self._name = redacted(settings.uri)
        self._thinning = Thinning(settings.stride, settings.max_fps)
        self._index = 0

    def frames(self, stopping: threading.Event) -> Iterator[Frame]:
        """Frames that are to be taken, until stopped."""
        backoff = Backoff(self._settings.backoff_s, self._settings.max_backoff_s)
        while not stopping.is_set():
            began = time.monotonic()
            yield from self._connection(stopping)
            if stopping.is_set():
                return
            if time.monotonic() - began > _GOOD_AFTER_S and self._stats.connected:
                backoff.reset()
            self._stats.connected = False
            wait_s = backoff.next_s()
            logger.warning("%s: %s; trying again in %.1f s", self._name, self._stats.error, wait_s)
            if stopping.wait(wait_s):
                return
            self._stats.reconnects += 1

    def _connection(self, stopping: threading.Event) -> Iterator[Frame]:
        """Frames of one connection, up to its end."""
        capture = cv2.VideoCapture()
        try:
            if not _open(capture, self._opening):
                self._stats.error = f"cannot be opened (waited {self._settings.open_timeout_s:g} s at most)"
                return
            _request_format(capture, self._settings)
            yield from self._grabbed(capture, stopping)
        finally:
            capture.release()

    def _grabbed(self, capture: cv2.VideoCapture, stopping: threading.Event) -> Iterator[Frame]:
        unreadable = 0
        while not stopping.is_set():
            if not grab(capture):
                self._stats.error = f"ended, or gave nothing for {self._settings.read_timeout_s:g} s"
                return
            captured_us, index = self._clock.now_us(), self._index
            self._index += 1
            if not self._thinning.takes(index, captured_us):
                continue
            image = retrieve(capture)
            unreadable = 0 if image is not None else unreadable + 1
            if image is not None:
                self._say_connected(image.shape)
                yield Frame(image, captured_us, index)
            elif self._too_many(unreadable):
                return

    def _too_many(self, unreadable: int) -> bool:
        self._stats.unreadable += 1
        self._stats.error = f"gave {unreadable} frames on end that cannot be decoded"
        return unreadable >= _MAX_UNREADABLE

    def _say_connected(self, shape: tuple[int, ...]) -> None:
        if not self._stats.connected:
            self._stats.connected, self._stats.error = True, None
            logger.info("%s: connected, %dx%d", self._name, shape[1], shape[0])


def opening_of(settings: SourceSettings) -> Opening:
    """How to open a live source.

    Raises:
        SourceError: This OpenCV has not been built with what it takes.
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
        return Opening(settings.uri, cv2.CAP_FFMPEG, timeouts)
    _check_backend(cv2.CAP_V4L2, "V4L2", "Devices are for Linux; elsewhere give a URL.")
    number = settings.uri.removeprefix("/dev/video")
    return Opening(int(number), cv2.CAP_V4L2, ())


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
    """Ask a device for a format; one that has no such gives its nearest."""
    if settings.fourcc is not None:  # first: the sizes that a device offers depend on it
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
    for name, value in ((cv2.CAP_PROP_FRAME_WIDTH, settings.width), (cv2.CAP_PROP_FRAME_HEIGHT, settings.height)):
        if value is not None:
            capture.set(name, value)
