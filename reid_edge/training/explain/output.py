"""Write an explanation to a file, in the form that its suffix asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reid_edge.errors import OutputError
from reid_edge.files import check_output, write_whole
from reid_edge.training.explain.explanation import Explanation


def open_writer(path: Path, *, force: bool = False) -> Callable[[Explanation], None]:
    """Check that an explanation can be written to a file, and return the function that writes it, whole or not at all.

    Args:
        path: File that ends in ``.html`` (one page that holds everything) or ``.png`` (a sheet).
        force: Replace an existing file.

    Raises:
        OutputError: The suffix is another, the file exists while ``force`` is off, or it cannot be written.
        MissingExtraError: Jinja (page) or Matplotlib (sheet) is not installed.
    """
    if path.suffix not in (".html", ".png"):
        raise OutputError(f"the output must end in .html (a page) or .png (a sheet), got {path}.")
    check_output(path, force=force, parents=True)
    render = _rendering(path.suffix)
    return lambda explanation: write_whole(path, render(explanation))


def _rendering(suffix: str) -> Callable[[Explanation], bytes]:
    if suffix == ".png":
        from reid_edge.training.explain.png_sheet import sheet

        return sheet
    from reid_edge.training.explain.html_page import page

    return lambda explanation: page(explanation).encode()
