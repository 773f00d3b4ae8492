"""Backups of galleries put back, but for what was erased since; cameras are asked for what came since."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import msgspec

from reid_edge.errors import StoreError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.backup_file import SIDES, check_sound, new_file, put_in_place
from reid_edge.gallery.calibrating import learn_after_erasure
from reid_edge.gallery.contents import copy_contents
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.replay import request_replay
from reid_edge.gallery.store import Store, open_store
from reid_edge.gallery.store.base import Erasure
from reid_edge.gallery.store.people import AllPeople
from reid_edge.gallery.store.sqlite import SqliteStore
from reid_edge.gallery.store.sqlite_beside import journal_path, mark_path, read_journal
from reid_edge.upstream.observation import Replay
from reid_edge.wording import counted

log = logging.getLogger(__name__)

_HOUR_US = 3600 * 1_000_000


@runtime_checkable
class SetsAside(Protocol):
    """A store that can put all that it holds aside, and back if what follows fails."""

    def set_aside(self, name: str, *, drop: bool) -> AbstractContextManager[str]:
        """Put what it holds aside under a name; drop that at the end if it is of no use."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore has done.

    Attributes:
        observations: Number of observations that are held now.
        erased: Number of observations of the backup that were erased after it was made, and left out.
        erasures: Number of erasures newer than the backup that were put in force.
        backup_us: Time of the backup, microseconds since 1970 UTC; 0 if not known.
        replay: Names the request to cameras to send again what they still have.
        set_aside: Where the gallery that was there before is now; "" if there was none.
    """

    observations: int
    erased: int
    erasures: int
    backup_us: int
    replay: str
    set_aside: str


def restore(path: Path, uri: str, *, now_us: int, force: bool = False, journals: Sequence[Path] = ()) -> Restored:
    """Put a backup into an empty or new gallery, but for what was erased since, and ask cameras for what came since.

    Erasures newer than the backup are taken from the gallery that is there, from the journal beside it, and from
    ``journals``.  The backup itself is not changed.

    Args:
        path: The backup; a copy of a gallery's SQLite file will do, also one of an earlier format.
        uri: URI of the gallery.
        now_us: The machine's time of day.
        force: Set aside a gallery that is there: the file, or the schema in PostgreSQL, gets another name.
        journals: Journals of erasures that were kept elsewhere.

    Raises:
        UsageError: There is no such backup, or the gallery holds something and ``force`` is off or of no use.
        StoreError: The backup is damaged, or the gallery cannot be written; what was there before is there still.
    """
    if not path.is_file():
        raise UsageError(f"there is no backup at {path}; 'reid-edge gallery backup STORE {path}' makes one.")
    newer = [erasure for journal in journals for erasure in _journal(journal)]
    with tempfile.TemporaryDirectory(prefix="reid-edge-restore-") as folder:
        copy = Path(folder) / "backup.db"
        digest = _copied(path, copy)
        check_sound(copy, path)
        with contextlib.closing(SqliteStore(copy, create=False, beside=False)) as backup:
            return _restore(backup, digest, uri, newer, now_us, force)


def _copied(path: Path, copy: Path) -> str:
    """Copy a backup, and the write-ahead log if it has one; return the sha256 of what was copied, without the log."""
    digest = hashlib.sha256()
    try:
        for suffix in ("", SIDES[0]):
            if (given := path.with_name(path.name + suffix)).is_file():
                shutil.copyfile(given, f"{copy}{suffix}")
        with copy.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise StoreError(
            f"cannot copy the backup {path} to {copy.parent}: {error.strerror or error}; nothing was changed. The copy "
            "needs as much room: TMPDIR=FOLDER gives it another place."
        ) from error
    return digest.hexdigest()


class _Made(msgspec.Struct):
    """What a backup says of itself."""

    at_us: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


def _made_us(backup: SqliteStore) -> int:
    """Return the time at which a backup was made, microseconds since 1970 UTC; 0 if it does not say so."""
    try:
        return msgspec.json.decode(backup.settings("backup").get("backup", "{}"), type=_Made).at_us
    except msgspec.DecodeError:  # damaged: cameras are asked for more than is needed
        return 0


def _restore(backup: SqliteStore, digest: str, uri: str, newer: list[Erasure], now_us: int, force: bool) -> Restored:
    made_us = _made_us(backup)
    request = Replay(id=uuid.uuid4().hex, since_us=max(0, made_us - int(backup.retention_hours() * _HOUR_US)))
    with _emptied(uri, force=force, now_us=now_us) as (target, before, set_aside), backup.snapshot() as held:
        contents = copy_contents(held, target, before.people)
        old = {erasure.id for erasure in held.erasures()}
        added = list({one.id: one for one in (*before.erasures, *newer) if one.id not in old}.values())
        erased = target.apply_erasures(added)
        if erased.keys and (left := learn_after_erasure(target, now_us=now_us)):
            log.warning("%s", left)
        request_replay(target, request)
        done = Restored(
            observations=contents.observations - len(erased.keys),
            erased=len(erased.keys),
            erasures=len(added),
            backup_us=made_us,
            replay=request.id,
            set_aside=set_aside,
        )
        audit.record(target, "restore", {**asdict(done), "backup_sha256": digest}, at_us=now_us)
        found = target.span(Selection()).observations
        if found != done.observations:
            raise StoreError(f"{target.name} holds {counted(found, 'observation')} instead of {done.observations:,}.")
    return done


def _journal(path: Path) -> list[Erasure]:
    try:
        return read_journal(path)
    except OSError as error:
        raise UsageError(f"cannot read the journal of erasures {path}: {error.strerror or error}.") from error


@dataclass(frozen=True)
class _Before:
    """What the new gallery takes over from the one that was there, as far as that can be read.

    Attributes:
        erasures: Its erasures.
        people: Its people, whose numbers are not given again.
    """

    erasures: list[Erasure]
    people: AllPeople | None = None


@contextlib.contextmanager
def _emptied(uri: str, *, force: bool, now_us: int) -> Iterator[tuple[Store, _Before, str]]:
    """Give an empty gallery, what is known of the one that was there, and the name that it has now."""
    if uri.startswith("sqlite:"):
        with _empty_file(Path(uri.removeprefix("sqlite:")), force=force, now_us=now_us) as given:
            yield given
        return
    with contextlib.closing(open_store(uri)) as store:
        held = store.span(Selection()).observations
        before = _Before(store.erasures(), _people_of(store))
        empty = not (held or store.audit_entries(1) or store.models())
        able = isinstance(store, SetsAside)
        if not empty and not (force and able):
            way = "or set it aside with --force" if able else "which Milvus needs"
            raise UsageError(
                f"{store.name} holds {counted(held, 'observation')}, an audit or models: restore into a new "
                f"database, {way}."
            )
        if isinstance(store, SetsAside):
            with store.set_aside(f"reid_edge_replaced_{now_us}", drop=empty) as name:
                yield store, before, "" if empty else name
        else:
            yield store, before, ""


@contextlib.contextmanager
def _empty_file(path: Path, *, force: bool, now_us: int) -> Iterator[tuple[Store, _Before, str]]:
    path = path.absolute()
    there = path.is_file() and path.stat().st_size > 0
    if there and not force:
        raise UsageError(f"there is a gallery at {path}; --force sets it aside, under another name, and restores.")
    before = _known_before(path, there=there)
    aside = f"{path}.replaced-{now_us}" if there else ""
    with new_file(path) as partial:
        with contextlib.closing(SqliteStore(partial, create=True, beside=False)) as store:
            store.name = f"sqlite:{path}"
            yield store, before, aside
        with _set_aside(path, aside) if there else contextlib.nullcontext():
            put_in_place(partial, path)
    mark_path(path).unlink(missing_ok=True)  # it is of the file that was there
    SqliteStore(path, create=False).close()  # completes the journal


@contextlib.contextmanager
def _set_aside(path: Path, aside: str) -> Iterator[None]:
    """Give a gallery's file another name, with its log; if the block fails, they have theirs again.

    The file keeps its own name, too, until the block puts another in its place: whoever opens it meanwhile, or after a
    kill, finds the gallery that was there, and does not begin an empty one.
    """
    moved: list[str] = []
    os.link(path, aside)
    try:
        for side in SIDES:
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + side).rename(aside + side)
                moved.append(side)
        yield
    except BaseException:
        for side in moved:
            Path(aside + side).rename(path.with_name(path.name + side))
        Path(aside).replace(path)
        Path(aside).unlink(missing_ok=True)  # of two names of one file, replace() leaves both
        raise


def _known_before(path: Path, *, there: bool) -> _Before:
    """Return what is known of a gallery that is to be set aside, as far as it can be read, and of its journal."""
    found = _Before(_journal(journal_path(path)) if journal_path(path).exists() else [])
    if there:
        with (
            contextlib.suppress(StoreError),
            contextlib.closing(SqliteStore(path, create=False, beside=False)) as store,
        ):
            found = _Before(found.erasures, _people_of(store))
            found.erasures.extend(store.erasures())
    return found


def _people_of(store: Store) -> AllPeople | None:
    """Return the people of a gallery that is to be set aside; None if they cannot be read, which is logged."""
    try:
        with store.snapshot() as held:
            return held.people()
    except StoreError as error:
        log.warning("numbers of people and events may be given again, since those given cannot be read: %s", error)
        return None
