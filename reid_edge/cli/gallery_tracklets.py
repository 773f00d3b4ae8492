"""``reid-edge gallery tracklets``: list what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from reid_edge.cli.csv_tables import CsvOption, check_csv, write_csv
from reid_edge.cli.file_positions import FilePositions
from reid_edge.cli.gallery_options import (
    CameraOption,
    FileStartOption,
    JsonOption,
    KeyOption,
    PurposeOption,
    SinceOption,
    StoreArgument,
    UntilOption,
    UtcOption,
    opened,
    print_json,
    selection_of,
    short_id,
)
from reid_edge.console import console, print_table, say
from reid_edge.gallery.listing import Listed, list_tracklets
from reid_edge.gallery.times import duration_text, now_us, time_text

COLUMNS = (
    "id", "camera", "epoch", "track", "first_us", "last_us", "first_seen", "last_seen", "captured_us", "crops",
    "quality", "confidence", "x1", "y1", "x2", "y2", "final", "observations", "model_hash", "position_s", "file",
    "person",
)  # fmt: skip


def tracklets(
    store: StoreArgument,
    purpose: PurposeOption,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int, typer.Option(help="Largest number of tracklets to list, most recently seen first; at most 10000.")
    ] = 100,
    skip: Annotated[int, typer.Option(help="Number of most recently seen tracklets to skip, for the next page.")] = 0,
    csv_: CsvOption = None,
    pseudonym_key: KeyOption = None,
    file_start: FileStartOption = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the stored tracklets, without their features. The audit records every list."""
    check_csv(csv_)
    selection, positions = selection_of(camera, since, until, pseudonym_key), FilePositions(file_start)
    with opened(store) as gallery:
        found = list_tracklets(
            gallery, selection=selection, purpose=purpose, now_us=now_us(), limit=limit, skip=skip,
            with_people=csv_ is not None or as_json,
        )  # fmt: skip
    rows = [_fields(one, positions) for one in found]
    if csv_ is not None:
        write_csv(csv_, COLUMNS, rows, what="tracklet")
    elif as_json:
        print_json(rows)
    else:
        _print(found, positions, utc=utc)
    if len(found) == limit:
        say(f"There may be more: --skip {skip + limit} shows the next ones.")


def _fields(one: Listed, positions: FilePositions) -> dict[str, Any]:
    entry, span = one.newest, one.span
    place = positions.of(entry.tracklet, span.first_us)
    values = (
        entry.id, entry.camera, entry.incarnation, entry.track, span.first_us, span.last_us,
        time_text(span.first_us, utc=True), time_text(span.last_us, utc=True), entry.captured_us, entry.crops,
        round(entry.quality, 4), round(entry.confidence, 4), *(round(edge, 5) for edge in entry.box), entry.final,
        span.observations, entry.model_hash, place and place.seconds, place and place.file, one.person,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _print(found: Sequence[Listed], positions: FilePositions, *, utc: bool) -> None:
    if not found:
        console.print("nothing found: no tracklet of these cameras and that time is held", soft_wrap=True)
        return
    places = [positions.of(one.newest.tracklet, one.span.first_us) for one in found]
    rows = [
        [
            short_id(one.newest),
            str(one.newest.track),
            time_text(one.span.first_us, utc=utc),
            *([str(place or "")] if any(places) else []),
            duration_text(one.span.last_us - one.span.first_us),
            str(one.newest.crops),
            f"{one.newest.quality:.2f}",
            " ".join(f"{edge:.2f}" for edge in one.newest.box),
            one.newest.model_hash[:8],
        ]
        for one, place in zip(found, places, strict=True)
    ]
    position = ["in the file"] if any(places) else []
    headers = ["id", "track", "first seen", *position, "for", "crops", "quality", "box, fractions of frame", "model"]
    print_table("tracklets, the last seen first", headers, rows, whole=True)
