"""What a run leaves to read: rows, curves, TensorBoard's scalars, a log."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from reid_edge.errors import MissingExtraError, OutputError
from reid_edge.files import write_whole
from reid_edge.training.curves import draw_curves
from reid_edge.training.folder import RunFolder

Row = dict[str, float]
#: Between two drawings of the curves; the last epoch's is always drawn.
DRAW_SECONDS = 60.0
#: Columns that are whole numbers.
WHOLE = ("epoch", "step")


class Recording:
    """Writes what can be read of a run; rows are kept in its state, so that resuming writes the same file again.

    Args:
        folder: Of the run.
        figures: Names of the figures of held-out images.
        step: Where the run begins or goes on: TensorBoard forgets what it heard of later steps.
        say: Gets every line of the log too.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: RunFolder, figures: Sequence[str], *, step: int, say: Callable[[str], object]) -> None:
        self._folder, self._figures, self._say = folder, figures, say
        self._board = _open_board(folder, step)
        self._drawn = -math.inf

    def rows(self, rows: Sequence[Row], *, last: bool) -> None:
        """Write all rows, tell TensorBoard the latest one, and draw the curves now and then.

        Raises:
            OutputError: The folder cannot be written.
        """
        write_whole(self._folder.metrics, table(rows).encode())
        self._tell_board(rows[-1])
        if last or time.monotonic() - self._drawn > DRAW_SECONDS:
            self._drawn = time.monotonic()
            draw_curves(rows, self._figures, self._folder.curves)

    def line(self, text: str) -> None:
        """Say something, and keep it in the log with the time.

        Raises:
            OutputError: The log cannot be written.
        """
        self._say(text)
        self.log(text)

    def log(self, text: str) -> None:
        """Keep something in the log with the time, without saying it.

        Raises:
            OutputError: The log cannot be written.
        """
        try:
            with self._folder.log.open("a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._folder.log}: {error.strerror}.") from error

    def close(self) -> None:
        """Give TensorBoard's file back."""
        with contextlib.suppress(OSError):  # the rows are in the metrics file
            self._board.close()

    def _tell_board(self, row: Row) -> None:
        try:
            for name, value in row.items():
                if name not in WHOLE:
                    part = "validation" if name in self._figures else "train"
                    self._board.add_scalar(f"{part}/{name}", value, int(row["step"]))
        except OSError as error:
            raise OutputError(f"cannot write {self._folder.board}: {error.strerror}.") from error


def check_packages() -> None:
    """Refuse, before any work, to train without what records it.

    Raises:
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    for name in ("matplotlib", "tensorboardX"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, "train", "recording a run")


def table(rows: Sequence[Row]) -> str:
    """Rows as CSV; each number in the shortest form that gives the same number again, what is missing is empty."""
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
