"""Output of the commands: tables, progress bars, and the error that names a missing extra."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import rich.box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from reid_edge.errors import MissingExtraError, ReidEdgeError, StoppedError
from reid_edge.foreign_text import printable
from reid_edge.progress import Notify

#: Columns where standard output is no terminal: 80, rich's default, would fold the tables.
PIPE_WIDTH = 120
#: Time between two plain lines of progress, and between two looks at a bar, seconds.
PLAIN_S, BAR_S = 10.0, 0.2

# Paths and extras may hold brackets: nothing that is printed is markup.
console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, emoji=False, highlight=False)
error_console = Console(stderr=True, markup=False, emoji=False, highlight=False)


def say(line: str) -> None:
    """Print a line for the user beside a command's output, on standard error."""
    error_console.print(printable(line), soft_wrap=True)


def run_script(main: Callable[[], object]) -> None:
    """Run a script's work; an error of reid-edge is printed and ends the process, a stop with its own exit code."""
    try:
        main()
    except StoppedError as error:
        error_console.print(f"{error}\nRun the same command to continue.", soft_wrap=True)
        sys.exit(error.exit_code)
    except ReidEdgeError as error:
        error_console.print(f"{type(error).__name__}: {error}", soft_wrap=True)
        sys.exit(1)


@contextlib.contextmanager
def progress_bars() -> Iterator[Notify]:
    """Yield a function that starts a bar on standard error for each stage of long work."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console) as progress:

        def notify(text: str, steps: int) -> Callable[..., None]:
            task = progress.add_task(text, total=steps)
            return lambda count=1: progress.advance(task, count)

        yield notify


@contextlib.contextmanager
def followed(
    text: str, position: Callable[[], int], total: int, line: Callable[[str], object], *, every_s: float = PLAIN_S
) -> Iterator[None]:
    """Show how far a service has got with a file while the block runs: a bar on a terminal, a plain line elsewhere.

    Args:
        text: What is done.
        position: Returns the number of steps that are done.
        total: Number of all steps; 0 shows nothing.
        line: Takes the plain line, every so often.
        every_s: Time between two lines, seconds.
    """
    ended = threading.Event()

    def show_lines() -> None:
        while not ended.wait(every_s):
            line(f"{text}: frame {position():,} of {total:,}")

    def show_bar() -> None:
        with progress_bars() as notify:
            step, done = notify(text, total), 0
            while not ended.wait(BAR_S):
                now = min(position(), total)
                step(now - done)
                done = now

    showing = threading.Thread(target=show_bar if sys.stderr.isatty() else show_lines, name="progress", daemon=True)
    if total:
        showing.start()
    try:
        yield
    finally:
        ended.set()
        if total:
            showing.join()


@contextlib.contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("reid_edge"):
            raise
        raise MissingExtraError(error.name or "?", name, purpose) from error


@contextlib.contextmanager
def output_may_be_full() -> Iterator[None]:
    """Let a service end well whose standard output is a file on a full disk, or a pipe that nobody reads any more."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())  # what is left in the buffer goes there at the end
        os.close(descriptor)


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], *, whole: bool = False) -> None:
    """Print rows on standard output; columns of numbers are aligned right.

    Args:
        title: Stands above.
        headers: Names of the columns.
        rows: Text of each cell.
        whole: Fold and shorten no cell, however narrow the terminal is: for ids, which are to be copied.
    """
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE)
    for column, header in enumerate(headers):
        numeric = all(row[column][:1].isdigit() or row[column] == "–" for row in rows)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    if whole:
        table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=not whole)
