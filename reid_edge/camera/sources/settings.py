"""Settings of a source, and the kinds of source that a URI can name."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from reid_edge.errors import SourceError
from reid_edge.redaction import redacted

Kind = Literal["file", "folder", "stream", "device", "gstreamer"]

#: Schemes that FFmpeg opens over a network.  Its other ones (concat:, data:, subfile:) would read local files.
STREAM_SCHEMES = frozenset({"http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
GSTREAMER_PREFIX = "gst:"
#: Usual suffixes of videos, for messages; whatever OpenCV decodes is taken.
VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".m4v", ".mpg", ".ts", ".webm", ".264", ".h264", ".265"})

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_DEVICE = re.compile(r"\d{1,3}|/dev/video\d{1,3}")

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Source of the frames.

    Attributes:
        uri: A video file; a folder of images; ``rtsp://…`` or ``http://…`` (also rtmp, rtp, srt, tcp, udp);
            ``/dev/video0`` or its number; or ``gst:`` and a GStreamer pipeline that ends in ``appsink``.
        loop: Start a file or folder again at its end. Without ``start`` it then plays in real time.
        realtime: Play a file like a camera: at its own speed, skipping frames that were not fetched in time.
        stride: Take every n-th frame.
        max_fps: Take at most this many frames per second of the source's time.
        fps: Frames per second of a folder (default: 25), or of a file that states a wrong number.
        start: Capture time of a file's first frame. Default: such that the last frame is of now.
        queue: Number of frames of a file that are decoded ahead.
        width: Width to request from a ``/dev/video`` device, pixels.
        height: Height to request, pixels.
        fourcc: Pixel format to request, e.g. ``MJPG``.
        open_timeout_s: Longest time for an attempt to open a stream, seconds; then it is repeated.
        read_timeout_s: Time without a frame after which a stream is opened again, seconds.
        backoff_s: Pause before the first reconnection, seconds. It doubles with each failure.
        max_backoff_s: Longest pause between reconnections, seconds.
    """

    uri: Annotated[str, msgspec.Meta(min_length=1)]
    loop: bool = False
    realtime: bool = False
    stride: Annotated[int, msgspec.Meta(ge=1)] = 1
    max_fps: Positive | None = None
    fps: Positive | None = None
    start: Annotated[datetime.datetime, msgspec.Meta(tz=True)] | None = None
    queue: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    width: Annotated[int, msgspec.Meta(ge=1)] | None = None
    height: Annotated[int, msgspec.Meta(ge=1)] | None = None
    fourcc: Annotated[str, msgspec.Meta(pattern="^.{4}$")] | None = None
    open_timeout_s: Seconds = 10.0
    read_timeout_s: Seconds = 10.0
    backoff_s: Seconds = 1.0
    max_backoff_s: Seconds = 60.0


def kind_of(uri: str) -> Kind:
    """Tell which kind of source a URI names.

    Raises:
        SourceError: It names no source that can be opened.
    """
    if uri.startswith(GSTREAMER_PREFIX):
        return "gstreamer"
    if _DEVICE.fullmatch(uri):
        return "device"
    if match := _SCHEME.match(uri):
        return _kind_of_scheme(match[1].lower())
    path = Path(uri).expanduser()
    if path.is_dir():
        return "folder"
    if path.is_file():
        return "file"
    what = "is neither a file nor a folder" if path.exists() else "does not exist"
    raise SourceError(
        f"source '{redacted(uri)}' {what}. Expected a video file, a folder of images, rtsp:// or http://, /dev/video0, "
        f"or {GSTREAMER_PREFIX} and a pipeline."
    )


def _kind_of_scheme(scheme: str) -> Kind:
    if scheme in STREAM_SCHEMES:
        return "stream"
    raise SourceError(
        f"source: no stream is opened by '{scheme}://'; known: {', '.join(sorted(STREAM_SCHEMES))}. "
        "For a file, give its path alone."
    )
