"""How the commands talk: tables, progress bars, errors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

import rich.box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from reid_edge.bundle import Artifact, Manifest
from reid_edge.errors import MissingExtraError

#: A pipe has no width; 80 columns would fold the tables.
PIPE_WIDTH = 120

# Paths and extras may hold brackets: nothing that is printed is markup.
console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, emoji=False, highlight=False)
error_console = Console(stderr=True, markup=False, emoji=False, highlight=False)


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[..., None]]]:
    """Yield a function that starts a bar with a text and a number of steps.

    It returns what to call after each step, or with a number after that many.
    """
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
def extra(name: str, purpose: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("reid_edge"):
            raise
        raise MissingExtraError(error.name or "?", name, purpose) from error


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows; columns of numbers are set right."""
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE)
    for column, header in enumerate(headers):
        numeric = all(row[column][:1].isdigit() or row[column] == "–" for row in rows)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def bundle_rows(manifest: Manifest) -> list[list[str]]:
    """Rows of the table that ends an export: file, size, parity or verdict, mult-adds, latency."""
    timed = {(entry.artifact, entry.crops): entry.median_ms for entry in manifest.latency}
    return [
        [
            artifact.files[0].path,
            f"{artifact.size_bytes / 1e6:.2f} MB",
            _judgement(artifact),
            f"{artifact.mult_adds / 1e6:.1f}M",
            *(f"{timed[artifact.name, crops]:.2f} ms" if (artifact.name, crops) in timed else "–" for crops in (1, 8)),
        ]
        for artifact in manifest.artifacts
    ]


BUNDLE_HEADERS = ("file", "size", "against the checkpoint", "mult-adds", "1 crop", "8 crops")


def _judgement(artifact: Artifact) -> str:
    if artifact.verdict is not None:
        return f"{artifact.verdict.verdict}: ranking {artifact.verdict.ranking:.3f}"
    if artifact.parity is not None:
        return f"cosine ≥ {_round_down(artifact.parity.cosine_min)}"
    return "not run: no GPU here"


def _round_down(cosine: float) -> str:
    return f"{min(int(cosine * 1e6) / 1e6, 0.999999):.6f}"
