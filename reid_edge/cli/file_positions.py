"""Where in its video file a tracklet was first seen: by a time that the user gives, or by the runs on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_edge.cli.state_folders import state_folders
from reid_edge.gallery.entries import Key
from reid_edge.gallery.times import now_us, parse_time

if TYPE_CHECKING:
    from reid_edge.camera.played_files import PlayedFile


@dataclass(frozen=True)
class Position:
    """A place in a file.

    Attributes:
        seconds: Time from the first frame.
        file: Name of the file, without its folder; None if it is not known.
        run: Number of the run, from 1, if the file was run several times for this camera and gallery; else None.
    """

    seconds: float
    file: str | None
    run: int | None = None

    def __str__(self) -> str:
        of_file = f" of {self.file}" if self.file else ""
        return f"{self.seconds:.2f} s{of_file}" + (f", run {self.run}" if self.run else "")


class FilePositions:
    """Places of tracklets in the files in which they were seen.

    Args:
        file_start: Time of the first frame, as a user writes it; None looks for the runs of files on this machine.

    Raises:
        UsageError: The time cannot be read.
    """

    def __init__(self, file_start: str | None) -> None:
        from reid_edge.camera.played_files import played_files

        self._start_us = None if file_start is None else parse_time(file_start, now_us=now_us())
        folders = state_folders() if file_start is None else ()
        self._runs = [run for folder in folders for run in played_files(folder) if run.first_us is not None]

    def of(self, tracklet: Key, first_us: int) -> Position | None:
        """Return where a tracklet was first seen.

        Args:
            tracklet: Its camera, incarnation and number.
            first_us: Time of its first sight, microseconds since 1970 UTC.

        Returns:
            Its place; None if it is not known from which file it came.
        """
        if self._start_us is not None:
            return Position((first_us - self._start_us) / 1e6, None)
        for run in reversed(self._runs):
            if run.first_us is not None and run.has(*tracklet):
                return Position((first_us - run.first_us) / 1e6, Path(run.file).name, self._number(run))
        return None

    def _number(self, run: PlayedFile) -> int | None:
        same = [other for other in self._runs if other.is_of_same(run)]
        return same.index(run) + 1 if len(same) > 1 else None
