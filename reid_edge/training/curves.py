"""A run's rows as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reid_edge.errors import MissingExtraError
from reid_edge.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, float]
#: Parts of a row that are drawn as losses.
LOSSES = ("loss", "cross_entropy", "triplet", "entropy", "mutual")


def draw_curves(rows: Sequence[Row], figures: Sequence[str], path: Path) -> None:
    """Draw losses, figures of held-out images, and the learning rate by epoch, as PNG.

    Args:
        rows: One an epoch, as in the metrics file.
        figures: Names of what is drawn in per cent, besides the accuracy on training images.
        path: Where.

    Raises:
        OutputError: It cannot be written.
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
