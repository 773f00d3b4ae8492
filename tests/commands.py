"""``reid-edge`` commands, run inside the test's process: a process of their own would spend seconds on imports."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import cv2

from reid_edge.cli import main
from reid_edge.system import private_memory


@dataclass(frozen=True)
class Finished:
    """Exit code and output of a command, named as :class:`subprocess.CompletedProcess` names them."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: object, cwd: Path | None = None) -> Finished:
    """Run ``reid-edge`` with arguments, in a folder.

    An exception that would end a process with a traceback is raised here, and fails the test.
    """
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: object = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_folder(cwd))
        stack.enter_context(_process_restored())
        stack.enter_context(mock.patch.object(sys, "argv", ["reid-edge", *map(str, arguments)]))
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(stderr))
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int), code
    return Finished(code, _text(stdout), _text(stderr))


def failure(*arguments: object, cwd: Path | None = None) -> str:
    """Return the message of a command that must fail as reid-edge fails: exit code 1 and one message."""
    run = run_command(*arguments, cwd=cwd)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stderr


def success(*arguments: object, cwd: Path | None = None) -> str:
    """Return what a command that must succeed prints."""
    run = run_command(*arguments, cwd=cwd)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _folder(path: Path | None) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path or before)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _process_restored() -> Iterator[None]:
    """Set back what a command sets for its whole process, and let it set no limit that could not be set back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    root = logging.getLogger()
    logs, level, threads = root.handlers[:], root.level, cv2.getNumThreads()
    try:
        with mock.patch.multiple(private_memory, _limit_cores=str, _forbid_dumps=str):
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        root.handlers[:] = logs
        root.setLevel(level)
        cv2.setNumThreads(threads)
