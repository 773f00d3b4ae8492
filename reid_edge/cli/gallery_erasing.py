"""``reid-edge gallery erase``: delete by camera, time, tracklet or person."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import typer

from reid_edge.cli.gallery_options import (
    CameraOption,
    KeyOption,
    PurposeOption,
    SinceOption,
    StoreArgument,
    UntilOption,
    opened,
    print_json,
    selection_of,
    stored_record,
)
from reid_edge.console import console, error_console
from reid_edge.errors import UsageError
from reid_edge.gallery.audit import checked_purpose
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.deletion import checked_selection, erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.people_views import tracklets_of
from reid_edge.gallery.person_erasure import UNRECOGNISED, erase_person
from reid_edge.gallery.store.base import CameraSummary
from reid_edge.gallery.times import now_us
from reid_edge.wording import counted

#: Most cameras that a note names.
MOST_CAMERAS_NAMED = 10


def erase(
    store: StoreArgument,
    purpose: PurposeOption,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    track: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Only the tracklet with this number; needs one --camera.")
    ] = None,
    incarnation: Annotated[
        str | None, typer.Option("--epoch", help="Only this incarnation of a camera's outbox; give its whole name.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The whole tracklet of this stored observation.")] = None,
    person: Annotated[
        int | None, typer.Option(min=1, help="All tracklets of this person; 'gallery people' shows the number.")
    ] = None,
    pseudonym_key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase. Without it, only count what would be erased.")] = False,
) -> None:
    """Erase observations by camera, time, tracklet or person, and print a receipt as JSON."""
    purpose = checked_purpose(purpose)
    selection = selection_of(camera, since, until, pseudonym_key, track=track, incarnation=incarnation)
    if id_ is not None and (selection != Selection() or person is not None):
        raise UsageError("--id means one tracklet: leave out the other options that select.")
    if person is not None and selection != Selection():
        raise UsageError("--person means all tracklets of one person: leave out the other options that select.")
    if person is not None:
        _erase_person(store, person, purpose, yes=yes)
        return
    with opened(store) as gallery:
        if id_ is not None:
            selection = stored_record(gallery, id_, pseudonym_key).entry.whole_tracklet
        checked_selection(selection)
        if yes:
            receipt = erase_with_receipt(gallery, selection, purpose=purpose, now_us=now_us())
            print_json(dataclasses.asdict(receipt))
            if not receipt.observations:
                _note_nothing_erased(gallery.cameras(kept_since_us(gallery, now_us())))
            return
        count = gallery.span(selection).observations
    would = f"{counted(count, 'observation')} would be erased from {gallery.name}; erase with --yes."
    console.print(would, soft_wrap=True)
    raise typer.Exit(1)


def _erase_person(store: str, person: int, purpose: str, *, yes: bool) -> None:
    with opened(store) as gallery:
        if yes:
            print_json(dataclasses.asdict(erase_person(gallery, person, purpose=purpose, now_us=now_us())))
            return
        count = len(tracklets_of(gallery, person))
        name = gallery.name
    console.print(
        f"{counted(count, 'tracklet')} of person {person} would be erased from {name}; erase with --yes. Not among "
        f"them: {UNRECOGNISED}.",
        soft_wrap=True,
    )
    raise typer.Exit(1)


def _note_nothing_erased(held: Sequence[CameraSummary]) -> None:
    """Print on standard error that nothing was erased, and which cameras are held."""
    names = [one.camera for one in held if one.observations]
    more = f" and {len(names) - MOST_CAMERAS_NAMED} more" if len(names) > MOST_CAMERAS_NAMED else ""
    cameras = f"observations of {', '.join(names[:MOST_CAMERAS_NAMED])}{more} are held" if names else "none are held"
    error_console.print(f"note: nothing was erased: no stored observation is selected; {cameras}.", soft_wrap=True)
