"""Documents: JSON values of any length that a store keeps among its settings, in pieces, each whole or refused."""

from __future__ import annotations

import json
import zlib
from typing import Any

from reid_edge.errors import StoreError
from reid_edge.gallery.store.base import Store

#: Characters of a piece: every store takes as many, even if its own encoding doubles them.
PIECE = 30_000
_PREFIX = "document/"


def write_document(store: Store, name: str, value: Any) -> None:
    """Write a document in place of the one with the same name.

    Args:
        store: Which gallery.
        name: Letters, digits, ``.``, ``-``, ``_`` and ``/``; no name may begin with another one and a ``/``.
        value: What JSON can hold.

    Raises:
        StoreError: The store fails; ``milvus:`` may be left with a part, which :func:`read_document` refuses.
    """
    text = json.dumps(value, separators=(",", ":"))  # ASCII
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    head = f"{zlib.crc32(text.encode()):08x} {len(pieces)} "
    changed: dict[str, str | None] = dict.fromkeys(store.settings(_start(name)))
    changed.update({f"{_start(name)}{place:06d}": head + piece for place, piece in enumerate(pieces)})
    store.change_settings(changed)


def read_document(store: Store, name: str) -> Any:
    """Return a document; None if there is none.

    Raises:
        StoreError: It is damaged or only a part of it is there, or the store fails.
    """
    held = store.settings(_start(name))
    if not held:
        return None
    parts = [held[key].split(" ", 2) for key in sorted(held)]
    text = "".join(part[-1] for part in parts)
    head = [f"{zlib.crc32(text.encode()):08x}", str(len(parts))]
    if any(part[:-1] != head for part in parts):
        raise StoreError(
            f"the document {name} in {store.name} is not what was written: it is damaged, or a part of it."
        )
    return json.loads(text)


def remove_document(store: Store, name: str) -> bool:
    """Remove a document; return whether there was one."""
    held = store.settings(_start(name))
    if held:
        store.change_settings(dict.fromkeys(held))
    return bool(held)


def _start(name: str) -> str:
    return f"{_PREFIX}{name}/"
