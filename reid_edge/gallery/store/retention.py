"""The retention as every store keeps it: the hours, and their checksum, since they decide what is deleted."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from reid_edge.errors import StoreError
from reid_edge.gallery.entries import LONGEST_RETENTION_HOURS
from reid_edge.gallery.store.base import DEFAULT_RETENTION_HOURS

_HOURS = "retention_hours"
#: Name of the checksum, and how the names of both begin.
CHECK, PREFIX = "retention_check", "retention_"


def retention_settings(hours: float) -> dict[str, str | None]:
    """Return the settings that keep a retention."""
    text = repr(hours)
    return {_HOURS: text, CHECK: _checksum(text)}


def retention_of(settings: Mapping[str, str], store: str) -> float:
    """Return the hours that settings keep.

    Args:
        settings: Those whose names begin with :data:`PREFIX`, or more.
        store: Name of the store, for the error.

    Raises:
        StoreError: They are damaged.
    """
    text = settings.get(_HOURS)
    if text is None:
        return DEFAULT_RETENTION_HOURS
    try:
        hours = float(text) if settings.get(CHECK, _checksum(text)) == _checksum(text) else 0.0
    except ValueError:
        hours = 0.0
    if not 0 < hours <= LONGEST_RETENTION_HOURS:
        raise StoreError(
            f"the retention of {store}, {text!a} hours, is not what was set, being damaged; set it again: "
            f"reid-edge gallery expire {store} --retention-hours HOURS"
        )
    return hours


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
