"""``reid-edge outbox``: what waits in a camera's outboxes, and its removal by hand."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_edge.cli.state_folders import ROOTS, state_folders
from reid_edge.console import console, extra, print_table
from reid_edge.errors import UsageError
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.upstream.outbox.transfer import Report

outbox_app = typer.Typer(
    no_args_is_help=True, help="List, move or discard observations that wait in the outboxes of this machine's cameras."
)

OutboxArgument = Annotated[Path, typer.Argument(help="Path of an outbox, as 'reid-edge outbox list' shows it.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@outbox_app.command("list")
def list_outboxes(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="State folders of cameras. Default: all on this machine.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many observations wait, for each camera and each gallery."""
    with extra("camera", "reading outboxes"):
        from reid_edge.upstream.outbox.transfer import survey

    if absent := [str(folder) for folder in folders or () if not folder.exists()]:
        raise UsageError(
            f"there is no {', no '.join(absent)}; give the state folder of a camera, as in operation.state_dir."
        )
    given = [folder if folder.is_dir() else folder.parent for folder in folders or ()]
    reports = [report for folder in given or list(state_folders()) for report in survey(folder)]
    if as_json:
        sys.stdout.write(json.dumps([_plain(report) for report in reports], indent=2) + "\n")
        return
    if not reports:
        searched = ", ".join(map(str, given or [folder.expanduser() for folder in ROOTS]))
        console.print(f"No outbox in {searched}. Give the state folder of a camera, as in operation.state_dir.")
        return
    headers = ("camera", "gallery", "rows", "MB", "oldest", "gaps", "missing", "outbox")
    print_table("waiting", headers, [_row(report) for report in reports])


@outbox_app.command("move")
def move_rows(
    outbox: OutboxArgument,
    to: Annotated[str, typer.Option(help="Upstream address of the gallery to move them to.")],
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Move waiting observations to another gallery. The first one learns that they will not arrive."""
    with extra("camera", "moving rows"):
        from reid_edge.upstream.outbox.transfer import move

    moved, path = move(
        outbox,
        to,
        agreed=lambda report, there: (
            yes or _asked(f"Move {counted(report.rows, 'observation')} of camera {report.camera} to {there.gallery}?")
        ),
    )
    if as_json:
        sys.stdout.write(json.dumps({"moved": moved, "outbox": str(path)}) + "\n")
    else:
        console.print(f"{counted(moved, 'observation')} moved to {path}.", soft_wrap=True)


@outbox_app.command("discard")
def discard_rows(
    outbox: OutboxArgument,
    undeclared: Annotated[
        bool, typer.Option("--undeclared", help="Also delete the record of gaps: the gallery never learns of them.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Discard waiting observations. Their gallery learns of the gap if the camera delivers to it again."""
    with extra("camera", "discarding rows"):
        from reid_edge.upstream.outbox.transfer import discard

    discarded = discard(
        outbox,
        undeclared=undeclared,
        agreed=lambda report: yes or _asked(_discarding(report, undeclared=undeclared)),
    )
    if as_json:
        sys.stdout.write(json.dumps({"discarded": discarded}) + "\n")
    else:
        with_gaps = ", and the file with its gaps is deleted: its gallery never learns of them" if undeclared else ""
        console.print(f"{counted(discarded, 'observation')} discarded{with_gaps}.", soft_wrap=True)


def _asked(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask at: give --yes.")
    return typer.confirm(question)


def _discarding(report: Report, *, undeclared: bool) -> str:
    gaps = f", and the gaps that count {report.missing:,} more" if undeclared and report.missing else ""
    return f"Discard {counted(report.rows, 'observation')} of {_whose(report)}{gaps} for good?"


def _whose(report: Report) -> str:
    return f"camera {report.camera} for {report.gallery}" if report.camera else "an earlier release"


def _plain(report: Report) -> dict[str, object]:
    return {**dataclasses.asdict(report), "path": str(report.path)}


def _row(report: Report) -> list[str]:
    if report.problem:
        return ["", report.problem, "", "", "", "", "", str(report.path)]
    return [
        report.camera or "unknown",
        report.gallery or "unknown",
        f"{report.rows:,}",
        f"{report.payload_bytes / 1e6:.1f}",
        "–" if report.oldest_s is None else _duration(report.oldest_s),
        f"{report.gaps:,}",
        f"{report.missing:,}",
        str(report.path),
    ]


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
