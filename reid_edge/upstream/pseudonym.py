"""Pseudonyms of cameras, which reveal nothing without the key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from reid_edge.errors import SettingsError

KEY_BYTES = 32


def camera_pseudonym(name: str, key: bytes) -> str:
    """Return ``c`` and the first 24 hexadecimal digits of the HMAC-SHA256 of a name under a key."""
    return "c" + hmac.new(key, name.encode("utf-8"), hashlib.sha256).hexdigest()[:24]


def load_or_create_key(path: Path | str) -> bytes:
    """Return the key in a file of 64 hexadecimal digits; make the file, for this user alone, if there is none.

    Only the key tells which pseudonym is which camera; without it nobody can find that out again.

    Raises:
        SettingsError: The file holds something else, others may read it, or it cannot be read or written.
    """
    path = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            return _load(path)
        return _create(path)
    except OSError as error:
        raise SettingsError(
            f"cannot read or write the key of the pseudonyms {path}: {error.strerror or error}. "
            "Give a file that this user can read, or a folder that it can write."
        ) from error


def _load(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise SettingsError(f"others can read the key of the pseudonyms {path} (mode {mode:o}): chmod 600 {path}")
        content = file.read(4096)
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{path} should hold {2 * KEY_BYTES} hexadecimal digits, the key of the pseudonyms, and holds something "
            "else. Restore it; only if no gallery knows this camera yet, remove it for a new one."
        )
    return key


def _create(path: Path) -> bytes:
    """Write a new key, whole or not at all, and return it; or the key of another process that was quicker."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        return _load(path)
    finally:
        partial.unlink(missing_ok=True)
