"""Render an explanation as one PNG picture, for a document or a chat."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

import numpy as np

from reid_edge.errors import MissingExtraError, OutputError
from reid_edge.training.explain.activations import overlay
from reid_edge.training.explain.clusters import Clustering
from reid_edge.training.explain.explanation import PRIVACY, Explanation, signed
from reid_edge.types import Image
from reid_edge.wording import counted

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise MissingExtraError("matplotlib", "explain", "making a sheet") from error

#: Height of a picture and the space between two, pixels.
HEIGHT = 128
GAP = 4
#: Pictures side by side in the rows of activation maps; image and map count as two.
ACROSS = 16
DPI = 100
#: Width of the column of text beside a cluster, and height of the title above the rows, pixels.
TEXT_WIDTH = 330
TITLE_HEIGHT = 106
ROW_HEIGHT = HEIGHT + 4 * GAP
#: Least width, which the title needs, and largest side that Matplotlib can draw, pixels.
MIN_WIDTH = 900
MAX_SIDE = 2**16 - 1


def sheet(explanation: Explanation) -> bytes:
    """Render the sheet as the bytes of a PNG file: a row for each cluster, then rows of images beside their maps.

    Raises:
        FrameError: An image is no longer readable.
        OutputError: The sheet would be larger than Matplotlib can draw.
    """
    width, height = _extent(explanation)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    _title(figure, explanation, width, height)
    for row, (text, strip) in enumerate(_rows(explanation)):
        top = height - TITLE_HEIGHT - row * ROW_HEIGHT
        place = (TEXT_WIDTH / width, (top - HEIGHT) / height, strip.shape[1] / width, HEIGHT / height)
        axes = figure.add_axes(place)
        axes.imshow(strip[..., ::-1], interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        figure.text(2 * GAP / width, top / height, text, va="top", fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return data.getvalue()


def _extent(explanation: Explanation) -> tuple[int, int]:
    """Return the sheet's width and height, pixels."""
    clusters = [] if explanation.clustering is None else explanation.clustering.clusters
    pictures = 2 * len(explanation.shown)
    columns = max([len(cluster.nearest) for cluster in clusters] + [min(ACROSS, pictures)])
    rows = len(clusters) + -(-pictures // ACROSS)
    width = max(MIN_WIDTH, TEXT_WIDTH + columns * (explanation.picture_size(HEIGHT)[1] + GAP) + 3 * GAP)
    height = TITLE_HEIGHT + rows * ROW_HEIGHT
    if max(width, height) > MAX_SIDE:
        raise OutputError(
            f"a sheet of {width}x{height} pixels is too large, at most {MAX_SIDE} each way; "
            "use fewer --nearest, --clusters or --maps, or write a .html page."
        )
    return width, height


def _rows(explanation: Explanation) -> Iterator[tuple[str, Image]]:
    """Yield the text beside each row of pictures, and the row."""
    clustering = explanation.clustering
    for number, cluster in enumerate([] if clustering is None else clustering.clusters):
        assert clustering is not None
        images = [explanation.picture(index, HEIGHT) for index in cluster.nearest]
        yield _cluster_text(explanation, clustering, number), _side_by_side(images)
    text = "Where conv5 is active,\neach image beside its map"
    pictures = _images_and_maps(explanation)
    while row := list(islice(pictures, ACROSS)):
        yield text, _side_by_side(row)
        text = ""


def _title(figure: Figure, explanation: Explanation, width: int, height: int) -> None:
    about = counted(len(explanation.paths), "image")
    if explanation.clustering is not None:
        held = 100 * explanation.clustering.explained
        about += f"; {len(explanation.clustering.clusters)} clusters of gates hold {held:.0f} % of their variance"
    lines = (
        (10, f"{explanation.title} from inside", 15, "black"),
        (38, explanation.model, 9, "#57606a"),
        (56, about, 9, "#57606a"),
        (74, PRIVACY, 9, "#7a4a00"),
    )
    for down, text, size, colour in lines:
        figure.text(2 * GAP / width, 1 - down / height, text, va="top", fontsize=size, color=colour)


def _cluster_text(explanation: Explanation, clustering: Clustering, number: int) -> str:
    cluster = clustering.clusters[number]
    lines = [f"Cluster {number + 1}: {counted(cluster.size, 'image')}", "weight of each stream, against all images:"]
    numbers = clustering.stream_means(cluster), clustering.stream_differences(cluster)
    for stream, mean, difference in zip(explanation.stream_names(), *numbers, strict=True):
        lines.append(f"  {stream}:  {mean:.4f}  ({signed(difference)})")
    return "\n".join(lines)


def _images_and_maps(explanation: Explanation) -> Iterator[Image]:
    for index, activations in zip(explanation.shown, explanation.maps, strict=True):
        image = explanation.picture(index, HEIGHT)
        yield image
        yield overlay(image, activations)


def _side_by_side(pictures: list[Image]) -> Image:
    space = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return np.hstack([part for one in pictures for part in (one, space)][:-1])
