"""Options, arguments and output that the commands of ``reid-edge gallery`` share."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reid_edge.errors import NoSuchObservationError, UsageError
from reid_edge.gallery import search as searching
from reid_edge.gallery.entries import Entry, Record, Selection
from reid_edge.gallery.store import Store, open_store
from reid_edge.gallery.times import now_us, parse_time
from reid_edge.redaction import remember
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from reid_edge.wire_names import checked_stored_name

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="sqlite:FILE, postgresql://…, milvus:http://HOST:19530.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UtcOption = Annotated[bool, typer.Option("--utc", help="Show times in UTC, not local time.")]
CameraOption = Annotated[list[str] | None, typer.Option("--camera", help="Only this camera. May be repeated.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Only people in sight after this time: 2h or 3d (ago), or 2026-11-23T14:05.")
]
UntilOption = Annotated[
    str | None, typer.Option(help="Only people in sight before this time; same formats as --since.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--pseudonym-key", help="Key file of the cameras' pseudonyms, so that --camera takes names."),
]
FileStartOption = Annotated[
    str | None,
    typer.Option(
        help="Time of a file's first frame, as 'run' shows it, for positions in the file. Default: the runs of files "
        "on this machine."
    ),
]
PurposeOption = Annotated[str, typer.Option(help="Reason for the command; it is written to the audit.")]

#: Characters of an incarnation in a table; enough to type an id.
INCARNATION_SHOWN = 8


@contextlib.contextmanager
def opened(uri: str, *, create: bool = False) -> Iterator[Store]:
    """Open a store, and close it at the end."""
    remember(uri)
    store = open_store(uri, create=create)
    try:
        yield store
    finally:
        store.close()


def print_json(value: Any) -> None:
    """Print a value that JSON can hold."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def selection_of(
    cameras: Sequence[str] | None,
    since: str | None,
    until: str | None,
    key: Path | None,
    *,
    track: int | None = None,
    incarnation: str | None = None,
) -> Selection:
    """Return the selection that the options describe.

    Raises:
        UsageError: A time or name cannot be read, ``since`` is later than ``until``, or a track has no camera.
    """
    now = now_us()
    chosen = Selection(
        cameras=tuple(dict.fromkeys(wire_name(name, key) for name in cameras or ())),
        incarnation=None if incarnation is None else checked_stored_name(incarnation, "--epoch", UsageError),
        track=track,
        since_us=None if since is None else parse_time(since, now_us=now),
        until_us=None if until is None else parse_time(until, now_us=now),
    )
    if chosen.since_us is not None and chosen.until_us is not None and chosen.since_us > chosen.until_us:
        raise UsageError(f"--since {since} is later than --until {until}.")
    if track is not None and len(chosen.cameras) != 1:
        raise UsageError("--track needs one --camera: each camera counts its own tracklets.")
    return chosen


def stored_record(store: Store, id_: str, key: Path | None) -> Record:
    """Return the record of an id; with the key of the pseudonyms its camera may be a name."""
    try:
        return searching.find_one(store, id_, now_us=now_us())
    except NoSuchObservationError:
        if key is None:
            raise
    name, slash, rest = id_.partition("/")
    return searching.find_one(store, f"{wire_name(name, key)}{slash}{rest}", now_us=now_us())


def wire_name(name: str, key: Path | None) -> str:
    """Return the name under which a camera sends: its pseudonym, if there is a key for it."""
    if key is None:
        return checked_stored_name(name, "camera", UsageError)
    if not key.is_file():
        raise UsageError(f"there is no key at {key}; give --pseudonym-key the file that the cameras' settings name.")
    return camera_pseudonym(name, load_or_create_key(key))


def short_id(entry: Entry) -> str:
    """Return an id as a table shows it: long enough to type."""
    return f"{entry.camera}/{entry.incarnation[:INCARNATION_SHOWN]}/{entry.seq}"
