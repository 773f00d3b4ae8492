"""Answers of ``reid-edge gallery`` as CSV: to a new file of the owner, or to standard output."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reid_edge.console import say
from reid_edge.files import check_output, write_whole
from reid_edge.wording import counted

CsvOption = Annotated[
    str | None, typer.Option("--csv", metavar="FILE|-", help="Write CSV to a new file, or to standard output (-).")
]
#: First characters from which a spreadsheet takes a cell for a formula.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def check_csv(path: str | None) -> None:
    """Refuse a file that exists already, before any work."""
    if path not in (None, "-"):
        check_output(Path(str(path)), force=False)


def write_csv(
    path: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], *, what: str, plural: str = ""
) -> None:
    """Write rows with a header; a text that a spreadsheet would compute begins with an apostrophe.

    Args:
        path: File, or ``-`` for standard output.
        columns: Names of the columns, in their order.
        rows: A value for each column.
        what: What a row is, in the singular.
        plural: Its plural, where it is not the singular with an s.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    if path == "-":
        sys.stdout.write(text.getvalue())
    else:
        write_whole(Path(path), text.getvalue().encode(), private=True)
        say(f"{path}: {counted(len(rows), what, plural)}")


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
