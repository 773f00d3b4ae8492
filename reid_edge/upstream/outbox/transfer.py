"""What waits in the outboxes of a camera's state folder, and its removal by hand: to another gallery, or for good."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reid_edge.errors import OutboxError, OutboxInUseError, UsageError
from reid_edge.files import acting_as_owner
from reid_edge.upstream.outbox.destination import OUTBOX, SCHEMES, Destination, beside, files_beside, no_gallery
from reid_edge.upstream.outbox.folder import lock, remove_with_lock
from reid_edge.upstream.outbox.outbox import Outbox

ROWS_A_COMMIT = 500


@dataclass(frozen=True)
class Report:
    """What waits in one outbox.

    Attributes:
        path: The file.
        camera: Name of the camera on the wire; "" if the file is of an earlier release.
        gallery: Address of the gallery that the rows are for, without user and password; likewise.
        rows: Number of rows that wait.
        payload_bytes: Bytes of their encoded observations.
        oldest_s: Seconds for which the oldest has been waiting; None without rows.
        gaps: Number of gaps that are not delivered.
        missing: Observations that they count.
        kept: Rows that are delivered and kept for a gallery that has to be restored.
        problem: Why the rest is not known; "" if it is.
    """

    path: Path
    camera: str = ""
    gallery: str = ""
    rows: int = 0
    payload_bytes: int = 0
    oldest_s: float | None = None
    gaps: int = 0
    missing: int = 0
    kept: int = 0
    problem: str = ""


def outboxes(folder: Path) -> Iterator[Path]:
    """Yield the outboxes of a state folder: the one in use, then those of other destinations."""
    path = folder / OUTBOX
    if path.exists():
        yield path
    yield from files_beside(path)


def survey(folder: Path) -> list[Report]:
    """Return what waits in each outbox of a state folder.

    Each is opened as the agent would open it: a damaged one is set aside, and one of an earlier format migrated.
    """
    with acting_as_owner(folder):
        return [_report(path) for path in outboxes(folder)]


def _report(path: Path) -> Report:
    try:
        with contextlib.closing(Outbox(path)) as outbox:
            return _described(outbox)
    except OutboxInUseError:
        return Report(path, problem="in use: the camera is running; see its /metrics and /healthz")
    except OutboxError as error:
        return Report(path, problem=str(error))


def _described(outbox: Outbox) -> Report:
    found = Destination.parsed(outbox.destination) or Destination("", "")
    return Report(
        path=outbox.path,
        camera=found.camera,
        gallery=found.gallery,
        rows=outbox.depth,
        payload_bytes=outbox.payload_bytes,
        oldest_s=outbox.oldest_age_s(),
        gaps=outbox.gap_count,
        missing=outbox.missing,
        kept=outbox.kept,
    )


def move(source: Path, uri: str, *, agreed: Callable[[Report, Destination], bool]) -> tuple[int, Path]:
    """Move the rows that wait in an outbox into the one of the same camera for another gallery.

    They get new sequence numbers there, and are declared as a gap to the gallery that will not get them.  An
    interruption at any point loses no row and moves none twice: move again.  The time for which they are kept begins
    anew.

    Args:
        source: The outbox to empty.
        uri: Upstream address of the other gallery.
        agreed: Is told what will be moved, and where to; False ends it.

    Returns:
        The number of rows moved, and the outbox that has them.

    Raises:
        UsageError: The outbox does not say whose it is, or is of that gallery already; or that is no gallery's address.
        OutboxError: The camera is running, or a file cannot be written.
    """
    _check(source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(acting_as_owner(source.parent))
        in_use = _held(source, stack)
        old = stack.enter_context(contextlib.closing(Outbox(source)))
        report = _described(old)
        if not report.camera:
            raise UsageError(
                f"{source} does not say for which camera and gallery its rows are: an earlier release wrote it. Start "
                "the camera with it once, or discard it."
            )
        if uri.partition(":")[0] not in SCHEMES or not uri.partition(":")[2].strip("/"):
            raise UsageError(no_gallery(uri))
        to = Destination.of(report.camera, uri)
        if str(to) == old.destination:
            raise UsageError(f"the rows in {source} are for {to.gallery} already.")
        is_in_use = in_use is not None and in_use.destination == str(to)
        path = source.with_name(OUTBOX) if is_in_use else beside(source.with_name(OUTBOX), str(to))
        if not report.rows:
            return 0, path
        if not agreed(report, to):
            return 0, source
        if in_use is not None and is_in_use:
            return _moved(old, in_use), path
        new = stack.enter_context(contextlib.closing(Outbox(path, destination=str(to))))
        return _moved(old, new), path


def _moved(old: Outbox, new: Outbox) -> int:
    moved = 0
    done = new.taken_from(old.incarnation)  # the commit here may have come, and the one there not
    while rows := old.pending(0, ROWS_A_COMMIT):
        last_seq = rows[-1][0]
        payloads = [payload for seq, payload in rows if seq > done]
        new.take(payloads, old.incarnation, last_seq)
        old.give_up(last_seq)
        moved += len(rows)
    return moved


def discard(source: Path, *, undeclared: bool, agreed: Callable[[Report], bool]) -> int:
    """Discard the rows that wait in an outbox.

    Args:
        source: The outbox.
        undeclared: Delete the file, with the gaps in it: its gallery will never learn of them.  Else the rows become a
            gap, which is declared if the camera delivers to that gallery again.
        agreed: Is told what will be discarded; False ends it.

    Returns:
        The number of rows discarded.

    Raises:
        OutboxError: The camera is running, or the file cannot be written.
    """
    _check(source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(acting_as_owner(source.parent))
        _held(source, stack)
        with contextlib.closing(Outbox(source)) as outbox:
            report = _described(outbox)
            if not (report.rows or undeclared) or not agreed(report):
                return 0
            if not undeclared:
                outbox.give_up(outbox.last_seq)
        if undeclared:
            remove_with_lock(source)
    return report.rows


def _check(source: Path) -> None:
    if source not in outboxes(source.parent):  # whatever else it is, it is not ours to open, or to set aside
        raise UsageError(
            f"there is no outbox {source}: its name is {OUTBOX}, or one like 'outbox.1a2b3c4d.db' beside it. "
            "'reid-edge outbox list FOLDER' shows those of a state folder."
        )


def _held(source: Path, stack: contextlib.ExitStack) -> Outbox | None:
    """Hold the outbox in use, if ``source`` is not that one, so that the camera does not run now, nor start meanwhile.

    Raises:
        OutboxInUseError: It runs.
    """
    main = source.with_name(OUTBOX)
    if source == main:  # opening it will tell
        return None
    if main.exists():
        return stack.enter_context(contextlib.closing(Outbox(main)))
    stack.enter_context(contextlib.closing(lock(main)))
    return None
