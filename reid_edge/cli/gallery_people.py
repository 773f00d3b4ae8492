"""``reid-edge gallery`` commands about people: identify, people, person, events."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reid_edge.cli.csv_tables import CsvOption, check_csv, write_csv
from reid_edge.cli.file_positions import FilePositions
from reid_edge.cli.gallery_limit import limit_text, stored_evidence
from reid_edge.cli.gallery_options import (
    INCARNATION_SHOWN,
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
)
from reid_edge.console import console, print_table, say
from reid_edge.foreign_text import printable
from reid_edge.gallery import people as identifying
from reid_edge.gallery.people_messages import event_fields
from reid_edge.gallery.people_views import PersonSummary, follow_events, journey, list_people
from reid_edge.gallery.store.people import Assignment, PersonEvent
from reid_edge.gallery.times import duration_text, now_us, time_text
from reid_edge.identity.background import LEAST_TRACKLETS
from reid_edge.identity.transit import StatedTransits, read_transits

WHAT_SURE_MEANS = (
    "How sure: the number compares how like a tracklet is to its person with how like it is to strangers. Larger is "
    "surer; of several tracklets the smallest counts. Tracklets are joined from 1.75 on (from 3.25 where they come one "
    "at a time), and only from more where few tracklets are held, or few have a match. 'unsure': somebody else is like "
    "it, but not surely the same; without a number, too few tracklets are held to tell."
)
PERSON_COLUMNS = (
    "person", "cameras", "first_us", "last_us", "first_seen", "last_seen", "tracklets", "sure", "similarity",
    "model_hash",
)  # fmt: skip
JOURNEY_COLUMNS = (
    "camera", "first_us", "last_us", "first_seen", "last_seen", "id", "epoch", "track", "how", "similarity", "reason",
    "centring", "calibration", "assigned_us", "model_hash", "position_s", "file",
)  # fmt: skip

#: What the other person of an event is to it.
_OTHER = {"new": "near", "seen again": "near", "merged": "with", "split": "from"}
#: Seconds between two looks for new events.
FOLLOW_S = 1.0

TransitsOption = Annotated[
    Path | None,
    typer.Option(help="TOML file with the shortest times between cameras; see docs/identity.md."),
]
PersonArgument = Annotated[int, typer.Argument(metavar="PERSON", min=1, help="Number shown by 'gallery people'.")]


def identify(
    store: StoreArgument,
    transits: TransitsOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Compare all tracklets again, including those already assigned.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find out which tracklets show the same person, on all cameras."""
    times = read_times(transits)
    with opened(store) as gallery:
        name = gallery.name
        done = identifying.identify(gallery, now_us=now_us(), again=again, transits=times)
        held = [] if times is None else [one.camera for one in gallery.cameras() if one.observations]
    if unknown := identifying.unknown_text(times, held):
        say(f"warning: {printable(unknown)}.")
    if as_json:
        print_json([dataclasses.asdict(one) for one in done])
        return
    if not done:
        console.print("nothing to do: the gallery holds no tracklet", soft_wrap=True)
    for one in done:
        of = f" of the model {one.model_hash[:8]}" if len(done) > 1 else ""
        happened = ", ".join(f"{count:,} {kind}" for kind, count in sorted(one.events.items())) or "nothing changed"
        console.print(
            f"{one.people:,} people{of} in {one.tracklets:,} tracklets: {one.assigned:,} tracklets share a person with "
            f"others, {one.unsure:,} are unsure, {one.alone:,} alone ({one.looked_at:,} looked at, {one.way}: "
            f"{happened})",
            soft_wrap=True,
        )
        if one.way != "nothing new" and one.tracklets >= LEAST_TRACKLETS:
            console.print(f"{limit_text(one.limit, one.known)}.", soft_wrap=True)
        for camera, at_us in one.moved.items():
            console.print(
                f"The features of {printable(camera)} are others since {time_text(at_us, utc=False)}: it was moved, or "
                "its light is another. What it has seen since is compared by a mean of its own.",
                soft_wrap=True,
            )
        for cameras in one.doubtful:
            say(f"warning: {identifying.doubt_text(cameras)}.")
        if note := _why_few(one, name):
            console.print(note, soft_wrap=True)


def _why_few(one: identifying.Identified, store: str) -> str:
    """Return why hardly anybody was joined, and what to do; "" if many were."""
    if one.tracklets < LEAST_TRACKLETS:
        return (
            f"No tracklets were joined: fewer than {LEAST_TRACKLETS} do not tell how much strangers resemble one "
            "another. Identify again when more have come."
        )
    if one.unsure <= one.assigned:
        return ""
    return (
        "So few tracklets are surely of one person that only those are joined that are nearly certain. More tracklets "
        "make more of them sure, and so does a model that knows the place. To join others yourself: 'reid-edge gallery "
        f"person {store} PERSON' shows ids, 'gallery search {store} --id ID' who is near, 'gallery merge' joins "
        f"two, and 'gallery calibrate {store} --pairs FILE' takes a file of labelled pairs."
    )


def read_times(transits: Path | None) -> StatedTransits | None:
    """Return the times between cameras that a file states; None without a file."""
    return None if transits is None else read_transits(transits)


def people(
    store: StoreArgument,
    purpose: PurposeOption,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    least: Annotated[int, typer.Option("--tracklets", help="Only people with at least this number of tracklets.")] = 1,
    limit: Annotated[
        int, typer.Option(help="Largest number of people to list, most recently seen first; at most 10000.")
    ] = 100,
    skip: Annotated[int, typer.Option(help="Number of most recently seen people to skip, for the next page.")] = 0,
    csv_: CsvOption = None,
    pseudonym_key: KeyOption = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """List people with their cameras and times, and how sure each is. The audit records every list."""
    check_csv(csv_)
    selection = selection_of(camera, since, until, pseudonym_key)
    with opened(store) as gallery:
        found = list_people(
            gallery, selection=selection, purpose=purpose, now_us=now_us(), least_tracklets=least, limit=limit,
            skip=skip,
        )  # fmt: skip
        name = gallery.name
        evidence = {model: stored_evidence(gallery, model) for model in sorted({one.model_hash for one in found})}
    rows = [_person_fields(one) for one in found]
    if csv_ is not None:
        shown = [{**row, "cameras": " ".join(row["cameras"])} for row in rows]
        write_csv(csv_, PERSON_COLUMNS, shown, what="person", plural="people")
    elif as_json:
        print_json(rows)
    else:
        _print_people(found, name, utc=utc)
        _print_evidence(evidence)
    if len(found) == limit:
        say(f"There may be more: --skip {skip + limit} shows the next ones.")


def person(
    store: StoreArgument,
    number: PersonArgument,
    purpose: PurposeOption,
    csv_: CsvOption = None,
    file_start: FileStartOption = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show where and when a person was seen, and how sure each sighting is. The audit records it."""
    check_csv(csv_)
    positions = FilePositions(file_start)
    with opened(store) as gallery:
        found = journey(gallery, number, purpose=purpose, now_us=now_us())
    rows = [_journey_fields(one, positions) for one in found]
    if csv_ is not None:
        write_csv(csv_, JOURNEY_COLUMNS, rows, what="tracklet")
    elif as_json:
        print_json(rows)
    else:
        _print_journey(found, number, positions, utc=utc)


def events(
    store: StoreArgument,
    purpose: PurposeOption,
    after: Annotated[int, typer.Option(min=0, help="Only events with a larger number than this.")] = 0,
    limit: Annotated[
        int, typer.Option(min=1, help="Largest number of events; with --follow, of the first look.")
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep running and show new events as they come, until stopped.")
    ] = False,
    utc: UtcOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show what became of people: new, seen again, merged, split. The audit records it."""
    with opened(store) as gallery:
        shown = follow_events(
            gallery, after=after, limit=limit, purpose=purpose, now_us=now_us(), every_s=FOLLOW_S if follow else None
        )
        for event in shown:
            text = json.dumps(event_fields(event)) if as_json else _event_text(event, utc=utc)
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def _event_text(event: PersonEvent, *, utc: bool) -> str:
    camera, incarnation, track = event.tracklet
    other = "" if event.other is None else f" ({_OTHER[event.kind]} {event.other})"
    return (
        f"{event.number}  {time_text(event.at_us, utc=utc)}  person {event.person} {event.kind}{other}: "
        f"{printable(camera)}/{incarnation[:INCARNATION_SHOWN]} tracklet {track}, "
        f"{_how_sure(event.reason, event.similarity)}"
    )


def _person_fields(one: PersonSummary) -> dict[str, Any]:
    values = (
        one.person, list(one.cameras), one.first_us, one.last_us, time_text(one.first_us, utc=True),
        time_text(one.last_us, utc=True), one.tracklets, one.sure, _rounded(one.similarity), one.model_hash,
    )  # fmt: skip
    return dict(zip(PERSON_COLUMNS, values, strict=True))


def _journey_fields(one: Assignment, positions: FilePositions) -> dict[str, Any]:
    place = positions.of(one.tracklet, one.first_us)
    values = (
        one.camera, one.first_us, one.last_us, time_text(one.first_us, utc=True), time_text(one.last_us, utc=True),
        one.id, one.incarnation, one.track, one.how, _rounded(one.similarity), one.reason, one.centring,
        one.calibration, one.at_us, one.model_hash, place and place.seconds, place and place.file,
    )  # fmt: skip
    return dict(zip(JOURNEY_COLUMNS, values, strict=True))


def _rounded(similarity: float | None) -> float | None:
    return None if similarity is None else round(similarity, 3)


def _how_sure(word: str, similarity: float | None) -> str:
    return word if similarity is None else f"{word}, {round(similarity, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"


def _print_people(found: Sequence[PersonSummary], name: str, *, utc: bool) -> None:
    if not found:
        console.print(
            f"nobody found. 'reid-edge gallery identify {name}' gives tracklets that are new to people.", soft_wrap=True
        )
        return
    rows = [
        [
            str(one.person),
            ", ".join(one.cameras),
            time_text(one.first_us, utc=utc),
            time_text(one.last_us, utc=utc),
            f"{one.tracklets:,}",
            _how_sure(one.sure, one.similarity),
        ]
        for one in found
    ]
    print_table("people", ["person", "cameras", "first seen", "last seen", "tracklets", "how sure"], rows, whole=True)
    console.print(WHAT_SURE_MEANS, soft_wrap=True)


def _print_evidence(evidence: Mapping[str, str]) -> None:
    for model, text in evidence.items():
        of = f" of the model {model[:8]}" if len(evidence) > 1 else ""
        console.print(f"Behind the limit{of}: {text}.", soft_wrap=True)


def _print_journey(found: Sequence[Assignment], number: int, positions: FilePositions, *, utc: bool) -> None:
    places = [positions.of(one.tracklet, one.first_us) for one in found]
    rows = [
        [
            one.camera,
            time_text(one.first_us, utc=utc),
            *([str(place or "")] if any(places) else []),
            duration_text(one.last_us - one.first_us),
            f"{one.camera}/{one.incarnation[:INCARNATION_SHOWN]}/{one.seq}",
            _how_sure(one.how, one.similarity),
            one.reason,
        ]
        for one, place in zip(found, places, strict=True)
    ]
    position = ["in the file"] if any(places) else []
    print_table(
        f"person {number}", ["camera", "first seen", *position, "for", "id", "how sure", "reason"], rows, whole=True
    )
    console.print(WHAT_SURE_MEANS, soft_wrap=True)
