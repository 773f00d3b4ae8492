"""Files that were run for a camera: a second run is noticed, and tracklets are found again in their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from reid_edge.files import write_whole

_NAME = "played.json"
#: Number of runs that are remembered, the last ones.
_MOST = 1000


class PlayedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a file.

    Attributes:
        file: Absolute path.
        version: Size and time of change of the file.
        at_us: End of the run, microseconds since 1970 UTC.
        camera: Name of the camera on the wire.
        gallery: Gallery that its features are for, as :func:`~reid_edge.upstream.outbox.destination.place` puts it; ""
            in notes of earlier releases, which did not say.
        epoch: Incarnation of its outbox.
        first_track: Number of the first tracklet.
        next_track: Number after that of the last tracklet.
        first_us: Capture time of the first frame; None if times do not tell places in the file, since it was looped.
    """

    file: str
    version: str
    at_us: int
    camera: str
    epoch: str
    first_track: int
    next_track: int
    first_us: int | None
    gallery: str = ""

    def has(self, camera: str, epoch: str, track: int) -> bool:
        """Tell whether a tracklet was seen in this run."""
        return (camera, epoch) == (self.camera, self.epoch) and self.first_track <= track < self.next_track

    def is_of_same(self, other: PlayedFile) -> bool:
        """Tell whether another run was of the same file, unchanged, for the same camera and gallery."""
        key = self.file, self.version, self.camera, self.gallery
        return key == (other.file, other.version, other.camera, other.gallery)


def version_of(file: Path) -> str:
    """Return what tells a file from what was or will be under its name.

    Raises:
        OSError: The file has gone.
    """
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def played_us(state_dir: Path, file: Path, gallery: str) -> int | None:
    """Return when a file, unchanged since, was last run for this camera and gallery; None if never.

    Returns:
        Microseconds since 1970 UTC.
    """
    same = str(file.resolve()), version_of(file)
    runs = [run for run in played_files(state_dir) if (run.file, run.version) == same]
    return max((run.at_us for run in runs if run.gallery in ("", gallery)), default=None)


def played_files(state_dir: Path) -> Iterator[PlayedFile]:
    """Yield the runs that are remembered; those that cannot be read are left out."""
    try:
        noted = msgspec.json.decode((state_dir / _NAME).read_bytes(), type=list[msgspec.Raw])
    except (OSError, msgspec.DecodeError):
        return
    for raw in noted:
        try:
            yield msgspec.json.decode(raw, type=PlayedFile)
        except msgspec.DecodeError:
            continue


def note_played(state_dir: Path, run: PlayedFile) -> None:
    """Remember a run.

    Raises:
        OutputError: The folder cannot be written.
        OSError: The folder fails.
    """
    kept = list(played_files(state_dir))[-_MOST + 1 :]
    write_whole(state_dir / _NAME, msgspec.json.encode([*kept, run]), private=True)
