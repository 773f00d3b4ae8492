"""``reid-edge gallery`` commands by which operators decide of people: merge, split, not-same."""

from __future__ import annotations

from typing import Annotated

import typer

from reid_edge.cli.gallery_options import KeyOption, PurposeOption, StoreArgument, opened, stored_record
from reid_edge.cli.gallery_people import PersonArgument
from reid_edge.console import console
from reid_edge.gallery import people_decisions as deciding
from reid_edge.gallery.people_decisions import Operator
from reid_edge.gallery.times import now_us

WithdrawOption = Annotated[
    bool, typer.Option("--withdraw", help="Withdraw earlier decisions of an operator that contradict this one.")
]


def merge(
    store: StoreArgument,
    people: Annotated[list[int], typer.Argument(metavar="PERSON PERSON…", min=1, help="The first number is kept.")],
    purpose: PurposeOption,
    withdraw: WithdrawOption = False,
) -> None:
    """Make several people one. Later assignments respect it; the audit records it."""
    with opened(store) as gallery:
        kept = deciding.merge(gallery, people, Operator(at_us=now_us(), purpose=purpose, withdraw=withdraw))
    console.print(f"they are person {kept} now", soft_wrap=True)


def split(
    store: StoreArgument,
    number: PersonArgument,
    id_: Annotated[
        list[str],
        typer.Option("--id", help="A tracklet that is not the person's, as 'gallery person' shows it. Repeatable."),
    ],
    purpose: PurposeOption,
    withdraw: WithdrawOption = False,
    pseudonym_key: KeyOption = None,
) -> None:
    """Make a new person of some of a person's tracklets. Later assignments respect it; the audit records it."""
    with opened(store) as gallery:
        tracklets = [stored_record(gallery, one, pseudonym_key).entry.tracklet for one in id_]
        by = Operator(at_us=now_us(), purpose=purpose, withdraw=withdraw)
        new = deciding.split(gallery, number, tracklets, by)
    console.print(f"they are person {new} now", soft_wrap=True)


def not_same(
    store: StoreArgument,
    first: PersonArgument,
    second: PersonArgument,
    purpose: PurposeOption,
) -> None:
    """Never make two people one. The audit records it."""
    with opened(store) as gallery:
        deciding.keep_apart(gallery, first, second, Operator(at_us=now_us(), purpose=purpose))
    console.print(f"people {first} and {second} stay two people", soft_wrap=True)
