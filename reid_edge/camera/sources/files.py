"""Read video files and folders of images: every frame, with a capture time that follows from its position."""

from __future__ import annotations

import logging
import math
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2

from reid_edge.camera.frames import Frame
from reid_edge.camera.sources.capture import Thinning, grab, reported_fps, reported_position_us, retrieve
from reid_edge.camera.sources.clock import CaptureClock
from reid_edge.camera.sources.ffmpeg_words import as_reason, ffmpeg_words
from reid_edge.camera.sources.positions import Positions, may_leap, measured_length
from reid_edge.camera.sources.settings import VIDEO_SUFFIXES, SourceSettings
from reid_edge.camera.sources.source import SourceStats
from reid_edge.errors import FrameError, SettingsError, SourceError
from reid_edge.images import IMAGE_SUFFIXES, is_image, read_image
from reid_edge.types import Image
from reid_edge.wording import counted

logger = logging.getLogger(__name__)

#: Frame rate of a folder, or of a file that reports none.
DEFAULT_FPS = 25.0
#: A file that holds less than this part of the frames that its header promises is damaged; headers are seldom exact.
_WHOLE = 0.95


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame of a file, not yet decoded.

    Attributes:
        index: Number of the frame, from 0.
        position_us: Time from the first frame, microseconds.
        load: Decodes it, or returns None if it is unreadable; to be called before the next picture is asked for.
    """

    index: int
    position_us: int
    load: Callable[[], Image | None]


class Playable(Protocol):
    """A file or folder that can be played repeatedly from its beginning."""

    duration_us: int
    """Time from the first frame to the last; 0 if it is not known."""
    expected: int
    """Number of frames; 0 if it is not known."""

    def play(self) -> Iterator[Picture]:
        """Yield the frames in order."""
        ...


class VideoFile:
    """A video, decoded by OpenCV.

    Args:
        path: The file.
        fps: Frames per second; None takes the number that the file reports.

    Raises:
        SourceError: The file is no video, or has no frame.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        self._path = path
        self._fps = fps
        self._may_leap = may_leap(path)
        self.duration_us = self.expected = 0
        with ffmpeg_words() as words:
            has_frame = any(picture.load() is not None for picture in self.play())
        if not has_frame:
            reason = f" ({said})" if (said := as_reason(words)) else ""
            raise SourceError(
                f"{path} ({path.stat().st_size} bytes) is not a video that OpenCV {cv2.__version__} decodes, or has no "
                f"frame{reason}. Try playing it, or convert it: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )

    def play(self) -> Iterator[Picture]:
        """Yield the frames in order."""
        capture = cv2.VideoCapture(str(self._path.absolute()))  # FFmpeg takes a word before a colon for a protocol
        try:
            yield from self._pictures(capture)
        finally:
            capture.release()

    def _pictures(self, capture: cv2.VideoCapture) -> Iterator[Picture]:
        step_us = round(1e6 / (self._fps or reported_fps(capture) or DEFAULT_FPS))
        self._measure(capture, step_us)
        positions = Positions(step_us, may_leap=self._may_leap)
        index = 0
        while grab(capture):
            position_us = positions.next(0 if self._fps else reported_position_us(capture))
            yield Picture(index, position_us, lambda: retrieve(capture))
            index += 1
        if 0 < index < _WHOLE * self.expected:
            logger.warning("%s ended after %d of %d frames: it is damaged there", self._path, index, self.expected)

    def _measure(self, capture: cv2.VideoCapture, step_us: int) -> None:
        """Find number of frames and duration, once."""
        if self.expected:
            return
        count, last_us = measured_length(self._path, step_us) if self._may_leap else (0, 0)
        self.expected = count or max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.duration_us = last_us if count and not self._fps else max(0, self.expected - 1) * step_us


class ImageFolder:
    """The images in a folder, in natural order of their names (2 before 10); or one image.

    Args:
        path: The folder or image.
        fps: Frames per second; None is 25.

    Raises:
        SourceError: There is no image, or none that can be read.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        self._step_us = 1e6 / (fps or DEFAULT_FPS)
        self._paths = [path] if path.is_file() else sorted(_images_in(path), key=_natural)
        videos = _videos_in(path) if path.is_dir() else []
        if not self._paths:
            raise SourceError(
                f"no image in the folder {path}; known suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}. "
                + (_one_by_one(videos) if videos else "Folders in it are not searched.")
            )
        if videos:
            logger.warning("%s: its images are played, and its %d videos are not", path, len(videos))
        self.duration_us = round((len(self._paths) - 1) * self._step_us)
        self.expected = len(self._paths)
        if not any(_load(image) is not None for image in self._paths):
            raise SourceError(f"none of {counted(len(self._paths), 'image')} in {path} can be read. Copy them again.")

    def play(self) -> Iterator[Picture]:
        """Yield the images in order."""
        for index, path in enumerate(self._paths):
            yield Picture(index, round(index * self._step_us), lambda path=path: _load(path))  # type: ignore[misc]


class FileReader:
    """Plays a file or folder: once or without end, as fast as it is taken or at its own speed.

    Args:
        settings: Which file to play, and how.
        clock: Gives the capture time of the first frame, unless the settings do.
        stats: Counts frames that cannot be decoded.

    Raises:
        SourceError: The file has no frame.
        SettingsError: ``start`` lies before 1970.
    """

    def __init__(self, settings: SourceSettings, clock: CaptureClock, stats: SourceStats) -> None:
        path = Path(settings.uri).expanduser()
        if settings.start is not None and settings.start.timestamp() < 0:
            raise SettingsError(f"source.start: expected a time after 1970, got {settings.start.isoformat()}.")
        as_images = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
        self._file: Playable = ImageFolder(path, settings.fps) if as_images else VideoFile(path, settings.fps)
        stats.expected = 0 if settings.loop else self._file.expected
        self._settings = settings
        self._clock = clock
        self._stats = stats
        self._decoded = 0

    def frames(self, stopping: threading.Event) -> Iterator[Frame]:
        """Yield the frames that thinning leaves.

        Raises:
            SourceError: In a later round, the file has gone or can no longer be decoded.
        """
        first_us = self._stats.first_us = self._first_us()
        thinning = Thinning(self._settings.stride, self._settings.max_fps)
        began_s = self._began_s()
        for picture in self._rounds():
            captured_us = first_us + picture.position_us
            if stopping.wait(began_s + picture.position_us / 1e6 - time.monotonic()):
                return
            if not thinning.takes(picture.index, captured_us):
                continue
            if (image := picture.load()) is None:
                self._stats.unreadable += 1
            else:
                self._decoded += 1
                yield Frame(image, captured_us, picture.index)

    def _first_us(self) -> int:
        """Capture time of the first frame, chosen so that the last one is not later than now."""
        if self._settings.start is not None:
            return round(self._settings.start.timestamp() * 1e6)
        return self._clock.now_us() - (0 if self._settings.realtime else self._file.duration_us)

    def _began_s(self) -> float:
        """``time.monotonic()`` at which the first frame is due.

        The time of day plays no part: it may be set while the file plays.
        """
        if self._settings.realtime:
            return time.monotonic()
        if self._settings.start is not None or not self._settings.loop:
            return -math.inf
        return time.monotonic() - self._file.duration_us / 1e6  # from its last frame on, in real time

    def _rounds(self) -> Iterator[Picture]:
        """Yield the file's frames once, or in a loop whose numbers and times go on."""
        index = position_us = 0
        while True:
            count = last_us = step_us = 0
            decoded, unreadable = self._decoded, self._stats.unreadable
            for picture in self._file.play():
                count = picture.index + 1
                step_us, last_us = picture.position_us - last_us, picture.position_us
                yield Picture(index + picture.index, position_us + picture.position_us, picture.load)
            if not count or (self._decoded == decoded and self._stats.unreadable > unreadable):
                raise SourceError(
                    f"{self._settings.uri} was played before, and is now missing or changed. Put it back."
                )
            if not self._settings.loop:
                return
            index += count
            position_us += last_us + (step_us or round(1e6 / DEFAULT_FPS))


def _load(path: Path) -> Image | None:
    try:
        return read_image(path)
    except FrameError as error:
        logger.warning("left out: %s", error)
        return None


def _images_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_image(path) and path.is_file()]


def _videos_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def _one_by_one(videos: list[Path]) -> str:
    """Say how to play the videos of a folder."""
    if len(videos) == 1:
        return f"It holds a video: --source {shlex.quote(str(videos[0]))}"
    each = f"{shlex.quote(str(videos[0].parent))}/*{videos[0].suffix}"
    return (
        f"It holds {len(videos)} videos, and a run plays one. To play them one after the other, in a shell: "
        f'for video in {each}; do reid-edge run BUNDLE --source "$video" --start TIME …; done'
    )


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
