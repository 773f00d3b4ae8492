"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from reid_edge.errors import OutputError

_PARTIAL = ".reid-edge.*.partial"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at any time, also after a power cut, either the old or the new content is there.

    The folder is made if it is not there.

    Raises:
        OutputError: It cannot be written; the old content stays.
    """
    # Not from the file's own name: that may be as long as a name can be.
    partial = path.with_name(_PARTIAL.replace("*", str(os.getpid())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; what was there before stays. Choose a writable folder "
            "with room for it."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error above says more
            partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left, from a folder in which nobody writes now."""
    for partial in folder.glob(_PARTIAL):
        with contextlib.suppress(OSError):  # it is in nobody's way
            partial.unlink()
