"""Other processes with an outbox: they write and are killed, find it in use, or may not let it grow.

Each is forked from a process that has imported everything, so that it starts at once.
"""

import contextlib
import multiprocessing
import resource
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from reid_edge.errors import OutboxError
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from tests.upstream.observing import observed

PATIENCE_S = 60.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", __name__])


def killed(work: Callable[[Connection, Path], None], path: Path, after_reports: int, after_s: float) -> list[Any]:
    """Run ``work`` until SIGKILL, some time after it has sent so many reports; returns its reports."""
    with _started(work, path) as (process, reports):
        assert reports.recv() == "ready"
        heard = [reports.recv() for _ in range(after_reports)]
        threading.Timer(after_s, process.kill).start()
        with contextlib.suppress(EOFError, OSError):  # OSError: the last report was cut off
            while True:
                heard.append(reports.recv())
        process.join(PATIENCE_S)
        assert process.exitcode == -signal.SIGKILL
    return heard


def reported(work: Callable[[Connection, Path], None], path: Path) -> Any:
    """Run ``work`` to its end; returns its only report."""
    with _started(work, path) as (process, reports):
        assert reports.poll(PATIENCE_S), "in vain"
        heard = reports.recv()
        process.join(PATIENCE_S)
        assert process.exitcode == 0
    return heard


@contextlib.contextmanager
def _started(work: Callable[[Connection, Path], None], path: Path):
    reports, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=work, args=(sender, path), daemon=True)
    process.start()
    sender.close()
    with reports:
        yield process, reports


def write_without_end(reports: Connection, path: Path) -> None:
    """Put, acknowledge and expire; reports ("put" or "acknowledging", sequence numbers)."""
    made = [observed(track, dim=256) for track in range(24)]
    reports.send("ready")
    outbox = Outbox(path, max_rows=40)
    for turn in range(10**6):
        outbox.put(made[: 1 + turn % 24])
        reports.send(("put", *range(outbox.last_seq - turn % 24, outbox.last_seq + 1)))
        if turn % 3 == 2:
            first = [seq for seq, _ in outbox.pending(0, 7)]
            reports.send(("acknowledging", *first))
            outbox.acknowledge(Ack("c", outbox.incarnation, tuple(first)))
        if turn % 50 == 49:
            outbox.expire()


def create_without_end(reports: Connection, folder: Path) -> None:
    """Make one outbox after another, each with one row; reports their numbers."""
    reports.send("ready")
    for number in range(10**6):
        outbox = Outbox(folder / f"{number}.db")
        outbox.put([observed(1, dim=8)])
        reports.send(number)
        if number % 2:
            outbox.close()


def open_once(reports: Connection, path: Path) -> None:
    """Open an outbox; reports the error, "" for none."""
    try:
        Outbox(path)
    except OutboxError as error:
        reports.send(f"{type(error).__name__}: {error}")
    else:
        reports.send("")


def put_beyond_the_limit(reports: Connection, path: Path) -> None:
    """Put until it has failed 20 times, with files that may not grow over 1 MB, then once more without the limit.

    Reports the rows there, the rows put, the messages of the failures, and the files set aside.
    """
    outbox = Outbox(path)
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, unlimited))
    failures: list[str] = []
    kept = 0
    while len(failures) < 20:
        try:
            outbox.put([observed(kept, dim=256)] * 8)
            kept += 8
        except OutboxError as error:
            failures.append(str(error))
    there = (outbox.depth, len(outbox.pending(0, 10**6)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    outbox.put([observed(kept)])
    reports.send((there, (outbox.depth - 1, kept), failures, outbox.set_aside))
