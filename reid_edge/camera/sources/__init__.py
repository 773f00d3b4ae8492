"""Sources of frames: files, folders, streams, devices and GStreamer pipelines."""

from __future__ import annotations

from reid_edge.camera.sources.clock import CaptureClock
from reid_edge.camera.sources.files import FileReader
from reid_edge.camera.sources.live import LiveReader
from reid_edge.camera.sources.settings import SourceSettings, kind_of
from reid_edge.camera.sources.source import Source, SourceStats
from reid_edge.errors import SourceError
from reid_edge.redaction import redacted

__all__ = ["Source", "SourceSettings", "SourceStats", "open_source"]

_FILES = ("file", "folder")


def open_source(settings: SourceSettings, *, clock: CaptureClock | None = None) -> Source:
    """Open a source and begin to capture.

    The first frame of a file is decoded before this returns.  A camera that does not answer is no error: opening it is
    repeated until it does (see :attr:`Source.stats`).

    Args:
        settings: Which source to open, and how.
        clock: Gives the capture times of live sources; None uses the system's clock.

    Raises:
        SourceError: The file, folder or device does not exist, it holds nothing that can be decoded, or this OpenCV
            cannot open such a source.
    """
    kind = kind_of(settings.uri)
    stats = SourceStats()
    clock = clock or CaptureClock()
    if kind in _FILES:
        stats.connected = True
        reader: FileReader | LiveReader = FileReader(settings, clock, stats)
    else:
        _refuse_file_options(settings)
        reader = LiveReader(settings, clock, stats)
    live = kind not in _FILES or settings.realtime
    return Source(reader, name=redacted(settings.uri), live=live, queue=settings.queue, stats=stats)


def _refuse_file_options(settings: SourceSettings) -> None:
    given = [name for name in ("loop", "realtime", "fps", "start") if getattr(settings, name)]
    if given:
        raise SourceError(f"source '{redacted(settings.uri)}' is live: leave out {', '.join(given)}, meant for files.")
