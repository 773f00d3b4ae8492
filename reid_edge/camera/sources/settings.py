"""What a settings file says about a source."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from reid_edge.errors import SourceError
from reid_edge.redaction import redacted

Kind = Literal["file", "folder", "stream", "device", "gstreamer"]

#: What FFmpeg opens over a network.  Others that it knows (concat:, data:, subfile:) read local files in odd ways.
STREAM_SCHEMES = frozenset({"http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
GSTREAMER_PREFIX = "gst:"

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_DEVICE = re.compile(r"\d{1,3}|/dev/video\d{1,3}")

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where frames come from, and how.

    Attributes:
        uri: A video file; a folder of images; ``rtsp://…`` or ``http://…`` (also rtmp, rtp, srt, tcp, udp);
            ``/dev/video0`` or its number; ``gst:`` and a GStreamer pipeline that ends in ``appsink``.
        loop: Begin a file or folder again at its end; without ``start`` in real time from then on.
        realtime: Play a file as a camera would: at its own speed, and a frame that nobody fetched is overwritten.
        stride: Take every n-th frame.
        max_fps: Take no more frames per second of the source's time.
        fps: Frames per second of a folder (25 if not given), or of a file that tells wrong ones.
        start: When a file's first frame was captured; so that its last is captured now, if not given.
        queue: Frames of a file that are decoded ahead.
        width: Asked of a ``/dev/video`` device, pixels.
        height: Likewise.
        fourcc: Likewise: the pixel format, e.g. ``MJPG``.
        open_timeout_s: A stream that does not open in this time is tried again.
        read_timeout_s: A stream that gives no frame in this time is opened again.
        backoff_s: Wait before the first reconnection; doubles with each failure.
        max_backoff_s: Longest wait.
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
    """Tell what a URI names.

    Raises:
        SourceError: It names nothing that can be opened.
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
