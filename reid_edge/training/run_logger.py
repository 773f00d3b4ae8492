"""Record a run for people to read: metrics file, curves, TensorBoard scalars, and log."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_edge.errors import MissingExtraError, OutputError
from reid_edge.files import write_whole
from reid_edge.training.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Between two drawings of the curves; the last epoch's is always drawn.
DRAW_SECONDS = 60.0
#: Columns that are whole numbers.
WHOLE = ("epoch", "step")
Row = dict[str, float]
#: Parts of a row that are drawn as losses.
LOSSES = (
    "loss", "cross_entropy", "triplet", "entropy", "mutual", "taught_feature", "taught_relations", "taught_logits",
)  # fmt: skip


class RunLogger:
    """Writes the metrics, curves and log of a run.

    The rows are part of the run's state, so that a resumed run writes the same file.

    Args:
        folder: Folder of the run.
        figures: Names of the figures of held-out images.
        step: Step at which the run begins or goes on; TensorBoard drops the scalars of later steps.
        say: Called with every line of the log.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: RunFolder, figures: Sequence[str], *, step: int, say: Callable[[str], object]) -> None:
        self._folder, self._figures, self._say = folder, figures, say
        self._board = _open_board(folder, step)
        self._drawn = -math.inf

    def rows(self, rows: Sequence[Row], *, last: bool) -> None:
        """Write all rows, add the latest one to TensorBoard, and draw the curves at most once a minute.

        Raises:
            OutputError: The folder cannot be written.
        """
        write_whole(self._folder.metrics, table(rows).encode())
        self._add_to_board(rows[-1])
        if last or time.monotonic() - self._drawn > DRAW_SECONDS:
            self._drawn = time.monotonic()
            draw_curves(rows, self._figures, self._folder.curves)

    def line(self, text: str) -> None:
        """Show a line to the user, and write it to the log with the time.

        Raises:
            OutputError: The log cannot be written.
        """
        self._say(text)
        self.log(text)

    def log(self, text: str) -> None:
        """Write a line to the log with the time, without showing it.

        Raises:
            OutputError: The log cannot be written.
        """
        try:
            with self._folder.log.open("a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._folder.log}: {error.strerror}.") from error

    def close(self) -> None:
        """Close TensorBoard's file."""
        with contextlib.suppress(OSError):  # the rows are in the metrics file
            self._board.close()

    def _add_to_board(self, row: Row) -> None:
        try:
            for name, value in row.items():
                if name not in WHOLE:
                    part = "validation" if name in self._figures else "train"
                    self._board.add_scalar(f"{part}/{name}", value, int(row["step"]))
        except OSError as error:
            raise OutputError(f"cannot write {self._folder.board}: {error.strerror}.") from error


def check_packages() -> None:
    """Check, before any work, that the packages that record a run are installed.

    Raises:
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    for name in ("matplotlib", "tensorboardX"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, "train", "recording a run")


def table(rows: Sequence[Row]) -> str:
    """Format rows as CSV: each number in the shortest form that reads back as the same number, missing ones empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: int(value) if name in WHOLE else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def _open_board(folder: RunFolder, step: int) -> Any:
    from tensorboardX import SummaryWriter

    try:
        return SummaryWriter(str(folder.board), purge_step=step + 1 if step else None)
    except OSError as error:
        raise OutputError(f"cannot write {folder.board}: {error.strerror}.") from error


def draw_curves(rows: Sequence[Row], figures: Sequence[str], path: Path) -> None:
    """Draw losses, figures of held-out images, and the learning rate by epoch, as PNG.

    Args:
        rows: One row an epoch, as in the metrics file.
        figures: Names of the figures that are drawn in per cent, besides the accuracy on training images.
        path: File to write.

    Raises:
        OutputError: The file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train", "drawing curves") from error

    figure = Figure(figsize=(12, 3.6))
    FigureCanvasAgg(figure)
    losses, quality, rate = figure.subplots(1, 3)
    figure.subplots_adjust(0.05, 0.14, 0.98, 0.9, 0.24)  # matplotlib's own layouts take a second
    _draw(losses, rows, LOSSES, "loss", scale=1.0)
    _draw(quality, rows, ("accuracy", *figures), "per cent", scale=100.0)
    _draw(rate, rows, ("learning_rate",), "learning rate", scale=1.0)
    rates = [row["learning_rate"] for row in rows]
    if min(rates) > 0 and max(rates) > 10 * min(rates):
        rate.set_yscale("log")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_whole(path, buffer.getvalue())


def _draw(axes: Axes, rows: Sequence[Row], names: Sequence[str], title: str, *, scale: float) -> None:
    for name in names:
        points = [(row["epoch"], scale * row[name]) for row in rows if name in row]
        if any(value for _, value in points):
            marker = "." if len(points) < 50 else ""
            label = "accuracy, training" if name == "accuracy" else name
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if len(axes.get_lines()) > 1:
        axes.legend(fontsize="small")
