"""What a gallery answers, as tables or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import rich.box
from rich.measure import Measurement
from rich.table import Table

from reid_edge.console import console, error_console, print_table
from reid_edge.gallery.search import Found
from reid_edge.gallery.store.base import AuditEntry, CameraSummary
from reid_edge.gallery.summary import Summary
from reid_edge.gallery.times import duration_text, time_text

#: Characters of an epoch in a table; an id may be typed with so few.
EPOCH_SHOWN = 8
MOST_CAMERAS_NAMED = 20


def print_json(value: Any) -> None:
    """Print what ``json`` takes."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def found_fields(found: Found) -> dict[str, Any]:
    """A tracklet for JSON."""
    best = found.best
    key = {"camera": best.camera, "epoch": best.epoch, "seq": best.seq}
    times = {"first_us": found.first_us, "last_us": found.last_us}
    return {"id": best.id, "cosine": round(found.cosine, 6), **key, **asdict(best), **times}


def print_found(found: Sequence[Found], named: str, *, utc: bool) -> None:
    """Print tracklets, best first."""
    if not found:
        console.print("nothing found: no other tracklet of these cameras and that time is held", soft_wrap=True)
        return
    table = Table(title=f"nearest to {named}", title_justify="left", box=rich.box.SIMPLE)
    table.add_column("cosine", justify="right", no_wrap=True)
    table.add_column("track", justify="right", no_wrap=True)
    table.add_column("first seen", no_wrap=True)
    table.add_column("for", no_wrap=True)
    table.add_column("id", no_wrap=True)
    for one in found:
        table.add_row(
            f"{one.cosine:.3f}",
            str(one.best.track),
            time_text(one.first_us, utc=utc),
            duration_text(one.last_us - one.first_us),
            f"{one.best.camera}/{one.best.epoch[:EPOCH_SHOWN]}/{one.best.seq}",
        )
    # As wide as it is, whatever the terminal: ids are to be copied, never on two lines, never shortened.
    table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=False)


def note_nothing_erased(held: Sequence[CameraSummary]) -> None:
    """Say, beside a receipt, that there was nothing to erase, and of which cameras there would be."""
    names = [one.camera for one in held if one.observations]
    more = f" and {len(names) - MOST_CAMERAS_NAMED} more" if len(names) > MOST_CAMERAS_NAMED else ""
    cameras = f"observations of {', '.join(names[:MOST_CAMERAS_NAMED])}{more} are held" if names else "none are held"
    error_console.print(f"note: nothing was erased, since nothing held is meant; {cameras}.", soft_wrap=True)


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
