"""``reid-edge evaluate-people``: do the people found agree with the true ones?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from reid_edge.cli.evaluation_tables import percent
from reid_edge.cli.shared_options import ForceOption
from reid_edge.console import extra, print_table, say
from reid_edge.files import check_output, write_whole
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.evaluation.people import PeopleQuality

_FILE_HELP = "CSV file with the columns camera, tracklet (or id) and person, and perhaps time."


def evaluate_people(
    found: Annotated[Path, typer.Argument(metavar="FOUND", help=f"People found: a {_FILE_HELP}")],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH", help="True people, in the same form; the person of a false detection is empty."
        ),
    ],
    json: Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")] = None,
    force: ForceOption = False,
) -> None:
    """Compare people found in a gallery with true ones: false merges, false splits, IDF1 and HOTA.

    A person is one over all cameras. Tracklets that TRUTH does not list are left out.
    """
    with extra("evaluation", "comparing people"):
        from reid_edge.evaluation.people import people_quality
    from reid_edge.evaluation.people_file import compared, read_people

    if json is not None:
        check_output(json, force=force)
    rows = compared(read_people(found), read_people(truth))
    if rows.left_out:
        say(f"not in {truth}, and left out: {counted(rows.left_out, 'tracklet')} of {found}")
    quality = people_quality(rows.found, rows.true)
    _print(quality)
    if json is not None:
        figures = {**dataclasses.asdict(quality), "left_out": rows.left_out}
        write_whole(json, msgspec.json.encode(figures) + b"\n")


def _print(quality: PeopleQuality) -> None:
    print_table(
        f"{counted(quality.tracklets, 'tracklet')} of {counted(quality.people, 'person', 'people')}, "
        f"found as {counted(quality.found, 'person', 'people')}; "
        f"{quality.missing:,} missing",
        ("false merges, pairs", "false splits, pairs", "pairs F1, %", "assigned, %", "of them with a wrong person"),
        [
            [
                f"{quality.false_merges:,}",
                f"{quality.false_splits:,}",
                percent(quality.pair_f1),
                percent(1 - quality.unassigned),
                f"{quality.with_wrong_person:,} of {quality.assigned:,}: {percent(quality.wrong_share)} %",
            ]
        ],
    )
    print_table(
        "metrics of multi-camera tracking, %",
        ("IDF1", "IDP", "IDR", "HOTA", "DetA", "AssA"),
        [
            [
                percent(value)
                for value in (
                    quality.idf1,
                    quality.identity_precision,
                    quality.identity_recall,
                    quality.hota,
                    quality.detection_accuracy,
                    quality.association_accuracy,
                )
            ]
        ],
    )
