"""The gaps of a gallery in Milvus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reid_edge.gallery.store.base import ELSEWHERE, StoredGap, grown
from reid_edge.gallery.store.milvus_meta import Meta


def add_gaps(meta: Meta, gaps: Sequence[StoredGap]) -> tuple[int, int]:
    """Store gaps; return how many are new, and how many observations for other galleries are newly counted."""
    names: dict[str, StoredGap] = {}
    elsewhere = 0
    for gap in gaps:
        name = f"{gap.camera}/{gap.incarnation}/"
        if gap.reason == ELSEWHERE:
            name += ELSEWHERE
            old = names.get(name) or _one(meta, name)
            names[name] = gap if old is None else grown(old, gap)
            elsewhere += names[name].count - (0 if old is None else old.count)
        else:
            names[f"{name}{gap.first_seq}-{gap.last_seq}"] = gap
    new = names.keys() - meta.existing("gap", list(names))
    for name, gap in names.items():
        if name in new or gap.reason == ELSEWHERE:
            body = asdict(gap)
            body["epoch"] = body.pop("incarnation")
            meta.put("gap", name, body, at_us=gap.received_us)
    return sum(names[name].reason != ELSEWHERE for name in new), elsewhere


def all_gaps(meta: Meta) -> list[StoredGap]:
    """Return the gaps."""
    return [_gap(body) for body in meta.bodies("gap").values()]


def _one(meta: Meta, name: str) -> StoredGap | None:
    body = meta.body("gap", name)
    return None if body is None else _gap(body)


def _gap(body: dict[str, Any]) -> StoredGap:
    return StoredGap(incarnation=body.pop("epoch"), **body)
