"""What a gallery answers, as tables or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reid_edge.console import console, print_table
from reid_edge.gallery.records import AuditEntry, CameraSummary
from reid_edge.gallery.search import Found
from reid_edge.gallery.summary import Summary
from reid_edge.gallery.times import time_text

#: Characters of an epoch in a table; an id may be typed with so few.
EPOCH_SHOWN = 8
CAMERA_SHOWN = 16


def print_json(value: Any) -> None:
    """Print what ``json`` takes."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def found_fields(found: Found) -> dict[str, Any]:
    """A tracklet for JSON."""
    fields = {"id": found.best.id, "cosine": round(found.cosine, 6), **asdict(found.best)}
    return fields | {"first_us": found.first_us, "last_us": found.last_us}


def print_found(found: Sequence[Found], named: str, *, utc: bool) -> None:
    """Print tracklets, best first."""
    if not found:
        console.print("nothing found: no other tracklet of these cameras and that time is held", soft_wrap=True)
        return
    rows = [
        [
            f"{one.cosine:.3f}",
            _short(one.best.camera, CAMERA_SHOWN),
            str(one.best.track),
            time_text(one.first_us, utc=utc),
            time_text(one.last_us, utc=utc),
            f"{one.best.camera}/{one.best.epoch[:EPOCH_SHOWN]}/{one.best.seq}",
        ]
        for one in found
    ]
    print_table(f"nearest to {named}", ("cosine", "camera", "track", "first seen", "last seen", "id"), rows)


def print_summary(summary: Summary, *, utc: bool) -> None:
    """Print what a gallery holds, then each camera."""
    rows = [
        ["observations", f"{summary.observations:,}"],
        ["first seen", time_text(summary.first_us, utc=utc)],
        ["last seen", time_text(summary.last_us, utc=utc)],
        ["lost on the way", f"{summary.lost:,} in {summary.gaps:,} gaps"],
        ["kept for", f"{summary.retention_hours:g} hours"],
        *(["model", f"{one.model_hash}, {one.dim or '?'} numbers"] for one in summary.models),
    ]
    print_table(summary.store, ("", ""), rows)
    print_cameras(summary.cameras, utc=utc)


def print_cameras(cameras: Sequence[CameraSummary], *, utc: bool) -> None:
    """Print what is held of each camera."""
    rows = [
        [
            one.camera,
            f"{one.observations:,}",
            f"{one.tracklets:,}",
            time_text(one.first_us, utc=utc),
            time_text(one.last_us, utc=utc),
            f"{one.lost:,}",
        ]
        for one in cameras
    ]
    print_table("cameras", ("camera", "observations", "tracklets", "first seen", "last seen", "lost"), rows)


def print_audit(entries: Sequence[AuditEntry], store: str, *, utc: bool) -> None:
    """Print entries of the audit."""
    rows = [
        [str(one.number), time_text(one.at_us, utc=utc), one.user, one.action, one.purpose, json.dumps(one.detail)]
        for one in entries
    ]
    print_table(f"audit of {store}", ("", "when", "who", "did", "for", "detail"), rows)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
