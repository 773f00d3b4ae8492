"""``reid-edge gallery`` commands that keep a gallery safe: backup, restore, erasures, roles."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from reid_edge.cli.gallery_options import JsonOption, StoreArgument, UtcOption, opened, print_json
from reid_edge.console import console, error_console
from reid_edge.gallery.backup import back_up
from reid_edge.gallery.contents import Contents
from reid_edge.gallery.restore import restore
from reid_edge.gallery.store import snapshots
from reid_edge.gallery.store.postgresql_roles import roles_sql
from reid_edge.gallery.store.sqlite_beside import journal_text
from reid_edge.gallery.times import now_us, time_text
from reid_edge.wording import counted


def backup(
    store: StoreArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Backup file to write; it is a SQLite gallery.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Back up a gallery, which may be in use, to one file, and check the file."""
    with opened(store) as gallery:
        contents = back_up(gallery, file, now_us=now_us(), force=force)
    if as_json:
        print_json(dataclasses.asdict(contents))
    else:
        _print_contents(contents, file)
    if contents.damaged:
        raise typer.Exit(1)


def restore_backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Backup file to read.")],
    store: StoreArgument,
    force: Annotated[bool, typer.Option("--force", help="Rename an existing gallery and keep it.")] = False,
    erasures: Annotated[
        list[Path] | None,
        typer.Option(help="File of erasures to apply, written by 'gallery erasures'. May be repeated."),
    ] = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup, without what was erased since. Cameras then resend what they still have."""
    done = restore(file, store, now_us=now_us(), force=force, journals=erasures or ())
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    made = time_text(done.backup_us or None, utc=utc)
    console.print(
        f"{counted(done.observations, 'observation')} restored from the backup of {made}; {done.erased:,} left out "
        f"because of {counted(done.erasures, 'later erasure')}",
        soft_wrap=True,
    )
    if done.set_aside:
        console.print(
            f"the gallery that was there before is now {done.set_aside}; delete it once nobody needs it", soft_wrap=True
        )
    console.print("cameras with upstream.keep_acknowledged_hours send again what they still have", soft_wrap=True)


def erasures(store: StoreArgument) -> None:
    """Print the erasures in force. Keep the output elsewhere; 'restore --erasures FILE' applies it."""
    with opened(store) as gallery:
        sys.stdout.write(journal_text(gallery.erasures()))


def check(store: StoreArgument) -> None:
    """Read a whole gallery and report what is damaged; 'serve' does so once a day."""
    with opened(store) as gallery:
        trouble = snapshots.check(gallery)
    if trouble:
        error_console.print(f"{gallery.name}: {trouble}", soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"{gallery.name}: nothing is damaged", soft_wrap=True)


def roles() -> None:
    """Print the SQL that creates the roles of a gallery in PostgreSQL: collector, searcher, eraser, auditor."""
    sys.stdout.write(roles_sql())


def _print_contents(contents: Contents, file: Path) -> None:
    console.print(
        f"{file}: {counted(contents.observations, 'observation')}, {counted(contents.gaps, 'gap')}, "
        f"{counted(contents.erasures, 'erasure')}, {counted(contents.audit_lines, 'line')} of audit, last hash "
        f"{contents.audit_head}",
        soft_wrap=True,
    )
    if contents.damaged:
        error_console.print(f"{counted(contents.damaged, 'damaged observation')} left out", soft_wrap=True)
    for fault in contents.audit_faults:
        error_console.print(f"audit: {fault}", soft_wrap=True)
