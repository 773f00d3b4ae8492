"""Backups of galleries: one SQLite file, whatever the store."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from reid_edge.errors import OutputError, StoreError
from reid_edge.files import check_output
from reid_edge.gallery import audit
from reid_edge.gallery.backup_file import SIDES, check_sound, make_one_file, new_file, put_in_place
from reid_edge.gallery.contents import Contents, copy_contents
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.chain import check_chain
from reid_edge.gallery.store.sqlite import SqliteStore
from reid_edge.gallery.store.sqlite_beside import journal_path, mark_path


def back_up(store: Store, path: Path, *, now_us: int, force: bool = False) -> Contents:
    """Write a gallery, which may be in use, into one file that its owner alone can read; verified, or not at all.

    Args:
        store: Which gallery.
        path: The file.
        now_us: The machine's time of day.
        force: Replace a file that is there.

    Raises:
        OutputError: The file is there, is of the gallery itself, or cannot be written.
        StoreError: The store fails, or the file does not hold what was written.
    """
    path = path.absolute()
    check_output(path, force=force)
    _check_apart(store, path)
    audit.record(store, "backup", {"file": str(path)}, at_us=now_us)
    with new_file(path) as partial:
        with contextlib.closing(SqliteStore(partial, create=True, beside=False)) as target, store.snapshot() as held:
            contents = copy_contents(held, target)
            target.change_settings({"backup": json.dumps({"at_us": now_us, "store": store.name})})
        make_one_file(partial)
        _check_copy(partial, contents)
        put_in_place(partial, path)
    return contents


def _check_copy(path: Path, expected: Contents) -> None:
    """Read a backup back, and compare it with what was written."""
    check_sound(path, path)
    with contextlib.closing(SqliteStore(path, create=False, beside=False)) as store, store.snapshot() as held:
        observations = sum(map(len, held.records()))
        report = check_chain(held.audit())
        found = (observations, held.damaged, len(held.gaps()), len(held.erasures()), report.lines, report.head)
    wanted = (
        expected.observations,
        0,
        expected.gaps,
        expected.erasures,
        expected.audit_lines,
        expected.audit_head,
    )
    if found != wanted:
        raise StoreError(f"the backup in {path} holds {found} instead of {wanted}: try again, on another disk.")
    make_one_file(path)


def _check_apart(store: Store, path: Path) -> None:
    """Refuse a path at which the gallery itself has a file."""
    if not isinstance(store, SqliteStore):
        return
    own = Path(store.name.removeprefix("sqlite:")).resolve()
    sides = [own.with_name(own.name + side) for side in SIDES]
    if path.resolve() in (own, *sides, journal_path(own), mark_path(own)):
        raise OutputError(f"{path} is of the gallery itself; give the backup another name, on another disk if you can.")
