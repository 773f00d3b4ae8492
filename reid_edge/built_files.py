"""Files that were built on this device from a signed bundle: the bundle stays as it was signed, a record lists them.

A TensorRT plan runs only where it was built, so no signature of its maker covers it.  It lies in a folder of this
user's, outside the bundle, beside a record of its sha256, of the manifest that it was built from, and of this machine.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from reid_edge.errors import OutputError, shortened
from reid_edge.files import check_owned, read_regular, write_whole
from reid_edge.manifest import Artifact, FileEntry

_logger = logging.getLogger(__name__)

RECORD = "record.json"
_FORMAT = 1
_MAX_RECORD_BYTES = 1 << 20
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, kw_only=True)
class BuiltRecord:
    """What was built from one signed manifest on one machine.

    Attributes:
        format_version: Format of the record.
        manifest_sha256: Of the manifest's bytes.
        machine: Hash of the machine's id; "" where it has none, as in a container.
        artifacts: What was built; files lie beside the record.
    """

    format_version: Annotated[int, msgspec.Meta(ge=1, le=_FORMAT)] = _FORMAT
    manifest_sha256: str
    machine: str
    artifacts: tuple[Artifact, ...]


def default_built_dir() -> Path | None:
    """Return the folder where this user's built files lie; None for a user without a home."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    except RuntimeError:
        return None
    return Path(state) / "reid-edge" / "built"


def built_folder(built_dir: Path, manifest_sha256: str) -> Path:
    """Return the folder of what was built from one manifest."""
    return built_dir / manifest_sha256


def built_artifacts(folder: Path, manifest_sha256: str) -> tuple[Artifact, ...]:
    """Read what was built from a manifest on this machine; nothing where there is no record that can be trusted.

    Args:
        folder: Of :func:`built_folder`.
        manifest_sha256: Of the manifest that was opened.
    """
    path = folder / RECORD
    try:
        found = folder.lstat()
    except OSError:  # not there, or in another user's home
        return ()
    try:
        owned = partial(check_owned, by_root_too=True)
        owned(found)
        content = read_regular(path, max_bytes=_MAX_RECORD_BYTES, check=owned, follow_link=False)
        record = msgspec.json.decode(content, type=BuiltRecord)
        if record.manifest_sha256 != manifest_sha256:
            raise ValueError("it is of another manifest")
        if record.machine != machine_id():
            raise ValueError("it was made on another machine")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, msgspec.DecodeError, ValueError, RecursionError) as error:
        _logger.warning(
            "what was built from this bundle is not used: %s: %s. Build it again: reid-edge build BUNDLE",
            path,
            getattr(error, "strerror", None) or shortened(error),
        )
        return ()
    return record.artifacts


def write_record(folder: Path, manifest_sha256: str, artifacts: tuple[Artifact, ...]) -> None:
    """Write the record of what lies in a folder.

    Raises:
        OutputError: It cannot be written.
    """
    record = BuiltRecord(manifest_sha256=manifest_sha256, machine=machine_id(), artifacts=artifacts)
    write_whole(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n", private=True)


def make_private_folder(folder: Path) -> None:
    """Make a folder that this user alone may enter.

    Raises:
        OutputError: It cannot be made, or is another's.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owned(folder.lstat())
    except OSError as error:
        raise OutputError(f"cannot keep what is built in {folder}: {error.strerror or error}.") from error


def machine_id() -> str:
    """Return a hash of this machine's id; "" where it has none."""
    for path in _MACHINE_IDS:
        try:
            if found := read_regular(path, max_bytes=1024).strip():
                return hashlib.sha256(b"reid-edge built files " + found).hexdigest()
        except OSError:
            continue
    return ""


def entries_of(artifacts: tuple[Artifact, ...]) -> frozenset[FileEntry]:
    """Return the files of artifacts."""
    return frozenset(entry for artifact in artifacts for entry in artifact.files)
