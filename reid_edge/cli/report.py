"""``reid-edge report``: results of many devices as one page, or as Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from reid_edge.cli.shared_options import ForceOption
from reid_edge.console import console
from reid_edge.errors import UsageError
from reid_edge.files import check_output, write_whole

PAGE = Path("report.html")


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Files that 'reid-edge benchmark --out' wrote, on one or more devices.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML page to write. Default: ./report.html, unless --markdown is given."),
    ] = None,
    markdown: Annotated[str | None, typer.Option(help="File for Markdown tables, or - to print them.")] = None,
    force: ForceOption = False,
) -> None:
    """Compare benchmarks of several devices: one self-contained page with plots, or Markdown tables."""
    from reid_edge.benchmark.report import gather, markdown_report, write_page
    from reid_edge.benchmark.result_file import read_result

    tables = Path(markdown) if markdown not in (None, "-") else None
    if out is None and markdown is None:
        out = PAGE
    if out is not None and tables is not None and out.resolve() == tables.resolve():
        raise UsageError(f"--out and --markdown are both {out}: one would replace the other; give two different files.")
    for path in (out, tables):
        if path is not None:
            check_output(path, force=force, parents=True)
    found = gather([read_result(path) for path in results])
    if markdown == "-":
        sys.stdout.write(markdown_report(found))
    if tables is not None:
        write_whole(tables, markdown_report(found).encode())
    if out is not None:
        write_page(found, out)
    if written := [str(path) for path in (tables, out) if path is not None]:
        text = f"{', '.join(written)}: {len(found.entries)} runs on {len(found.devices)} devices"
        console.print(text.replace(" 1 devices", " 1 device"), soft_wrap=True)
