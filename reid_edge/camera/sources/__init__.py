"""Sources of frames: files, folders, streams, devices and pipelines."""

from __future__ import annotations

from reid_edge.camera.clock import CaptureClock
from reid_edge.camera.sources.config import SourceConfig, kind_of
from reid_edge.camera.sources.files import FileReader
from reid_edge.camera.sources.live import LiveReader
from reid_edge.camera.sources.source import Source
from reid_edge.camera.sources.stats import SourceStats
from reid_edge.errors import SourceError
from reid_edge.redaction import redacted

__all__ = ["Source", "SourceConfig", "SourceStats", "open_source"]

_FILES = ("file", "folder")


def open_source(config: SourceConfig, *, clock: CaptureClock | None = None) -> Source:
    """Open a source and begin to capture.

    A file is opened and its first frame decoded before this returns.  A camera that does not answer is no error: it is
    tried again until it does (see :attr:`Source.stats`).

    Args:
        config: Which source, and how.
        clock: Stamps frames of live sources; the system's, if not given.

    Raises:
        SourceError: No such file or folder, nothing in it that can be decoded, or a source that this OpenCV cannot
            open.
    """
    kind = kind_of(config.uri)
    stats = SourceStats()
    clock = clock or CaptureClock()
    if kind in _FILES:
        stats.connected = True
        reader: FileReader | LiveReader = FileReader(config, clock, stats)
    else:
        _refuse_file_options(config)
        reader = LiveReader(config, clock, stats)
    live = kind not in _FILES or config.realtime
    return Source(reader, name=redacted(config.uri), live=live, queue=config.queue, stats=stats)


def _refuse_file_options(config: SourceConfig) -> None:
    given = [name for name in ("loop", "realtime", "fps", "start") if getattr(config, name)]
    if given:
        raise SourceError(f"source '{redacted(config.uri)}' is live: leave out {', '.join(given)}, meant for files.")
