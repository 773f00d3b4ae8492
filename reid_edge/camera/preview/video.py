"""Write an annotated video by OpenCV."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2

from reid_edge.camera.frames import Frame
from reid_edge.errors import OutputError
from reid_edge.files import check_output, partial_of
from reid_edge.types import Image

#: Codec of each kind of file.
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
#: Frames from whose times the frame rate is taken, and the rate if there is but one.
FIRST_FRAMES, USUAL_FPS = 10, 25.0


class AnnotatedVideo:
    """Writes frames to a video that has its name only once it is whole, readable by this user alone.

    A context manager: if its block fails, no video is left.

    Args:
        path: File that ends in ``.mp4``, ``.avi`` or ``.mkv``.
        force: Replace an existing file.

    Raises:
        OutputError: It has another suffix, exists while ``force`` is off, or its folder cannot be written.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        if path.suffix.lower() not in CODECS:
            raise OutputError(f"--video: expected a file that ends in {', '.join(CODECS)}; got {path}.")
        check_output(path, force=force)
        self._path = path
        partial = partial_of(path)
        self._partial = partial.with_name(partial.name + path.suffix.lower())
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._waiting: list[tuple[int, Image]] = []

    def __enter__(self) -> AnnotatedVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._writer is not None:
                self._writer.release()
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def add(self, frame: Frame, image: Image) -> None:
        """Add a frame.

        Args:
            frame: Gives the time.
            image: H×W×3 uint8 BGR; one of another size than the first is resized to it.

        Raises:
            OutputError: This OpenCV lacks the codec, or the file cannot be written.
        """
        if self._writer is not None:
            self._write(image)
            return
        self._waiting.append((frame.steady_us, image))
        if len(self._waiting) == FIRST_FRAMES:
            self._begin()

    def _begin(self) -> None:
        first_us, image = self._waiting[0]
        passed_s = (self._waiting[-1][0] - first_us) / 1e6
        fps = (len(self._waiting) - 1) / passed_s if passed_s > 0 else USUAL_FPS
        self._size_wh = image.shape[1], image.shape[0]
        self._writer = self._opened(min(120.0, max(1.0, fps)))
        for _, waiting in self._waiting:
            self._write(waiting)
        self._waiting.clear()

    def _opened(self, fps: float) -> cv2.VideoWriter:
        suffix = self._path.suffix.lower()
        try:  # first, so that nobody else can read it at any time
            os.close(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}; choose another folder."
            ) from error
        codec = CODECS[suffix]
        writer = cv2.VideoWriter(str(self._partial.absolute()), cv2.VideoWriter.fourcc(*codec), fps, self._size_wh)
        if not writer.isOpened():
            others = ", ".join(sorted(CODECS.keys() - {suffix}))
            raise OutputError(
                f"OpenCV {cv2.__version__} on this machine cannot write {suffix} with the codec {codec} at "
                f"{self._size_wh[0]}x{self._size_wh[1]}; give --video a name that ends in {others}, or leave it out."
            )
        return writer

    def _write(self, image: Image) -> None:
        assert self._writer is not None
        if (image.shape[1], image.shape[0]) != self._size_wh:
            image = cv2.resize(image, self._size_wh, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        self._writer.write(image)

    def _finish(self) -> None:
        """Give the video its name; one without a frame is not written."""
        if self._writer is None and self._waiting:
            self._begin()
        if self._writer is None:
            return
        self._writer.release()
        try:
            if not self._partial.stat().st_size:
                raise OutputError(f"cannot write {self._path}: OpenCV wrote nothing; is the disk full?")
            self._partial.replace(self._path)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}.") from error
