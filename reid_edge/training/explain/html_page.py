"""Render an explanation as one HTML page that holds its pictures and style; no scripts, no network access."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import MissingExtraError
from reid_edge.pages import data_uri, page_asset, page_template
from reid_edge.training.explain.activations import overlay
from reid_edge.training.explain.clusters import Cluster, Clustering
from reid_edge.training.explain.explanation import PRIVACY, Explanation, signed
from reid_edge.types import Image

try:
    TEMPLATE = page_template(__package__)
except ModuleNotFoundError as error:  # now, not after the work whose result the page is to show
    raise MissingExtraError("jinja2", "explain", "making a page") from error

#: Heights of pictures, pixels: of a cluster's images, and beside an activation map.
THUMBNAIL = 128
LARGE = 192

#: Blue and orange, as BGR, visible on white and on black: below and above the mean of all images.
LESS, MORE = (210, 130, 20), (20, 110, 235)


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An image on the page."""

    address: str
    name: str


@dataclass(frozen=True, kw_only=True)
class _Bar:
    """One stream of a cluster: numbers as text, and the place of its bar, in per cent of the full width."""

    stream: str
    mean: str
    difference: str
    left: float
    width: float


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A cluster on the page."""

    size: int
    bars: list[_Bar]
    channels: str
    pictures: list[_Picture]


def page(explanation: Explanation) -> str:
    """Render the page as text.

    Raises:
        FrameError: An image is no longer readable.
    """
    clustering = explanation.clustering
    return TEMPLATE.render(
        explanation=explanation,
        clustering=clustering,
        cards=[] if clustering is None else _cards(explanation, clustering),
        overall=[] if clustering is None else zip(explanation.stream_names(), clustering.overall(), strict=True),
        maps=_maps(explanation),
        shape=explanation.maps.shape[1:],
        cell=4 * explanation.info.variant.stem_reduction,  # two 2x2 pools follow
        privacy=PRIVACY,
        portrait=explanation.info.size[0] >= explanation.info.size[1],
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=page_asset(__package__, "page.css"),
    )


def _cards(explanation: Explanation, clustering: Clustering) -> list[_Card]:
    channels = max(float(abs(clustering.difference(one)).max()) for one in clustering.clusters)
    streams = max(max(map(abs, clustering.stream_differences(one))) for one in clustering.clusters)
    return [
        _Card(
            size=cluster.size,
            bars=_bars(explanation, clustering, cluster, streams),
            channels=data_uri(difference_picture(clustering.difference(cluster), channels), lossless=True),
            pictures=[_thumbnail(explanation, index) for index in cluster.nearest],
        )
        for cluster in clustering.clusters
    ]


def _bars(explanation: Explanation, clustering: Clustering, cluster: Cluster, limit: float) -> list[_Bar]:
    bars = []
    numbers = clustering.stream_means(cluster), clustering.stream_differences(cluster)
    for stream, mean, difference in zip(explanation.stream_names(), *numbers, strict=True):
        width = 50 * abs(difference) / (limit or 1.0)
        left = 50 - width if difference < 0 else 50.0
        bars.append(_Bar(stream=stream, mean=f"{mean:.4f}", difference=signed(difference), left=left, width=width))
    return bars


def _thumbnail(explanation: Explanation, index: int) -> _Picture:
    path = explanation.paths[index]
    return _Picture(address=data_uri(explanation.picture(index, THUMBNAIL)), name=path.name)


def _maps(explanation: Explanation) -> list[tuple[_Picture, _Picture]]:
    """Return pairs of image and overlay."""
    pairs = []
    for index, activations in zip(explanation.shown, explanation.maps, strict=True):
        path = explanation.paths[index]
        image = explanation.picture(index, LARGE)
        addresses = data_uri(image), data_uri(overlay(image, activations))
        pairs.append((_Picture(address=addresses[0], name=path.name), _Picture(address=addresses[1], name=path.name)))
    return pairs


def difference_picture(difference: npt.NDArray[np.float64], limit: float) -> Image:
    """Draw T×C numbers as T×C×4 uint8 pixels, BGR and opacity: blue at −limit, transparent at 0, orange at +limit."""
    share = np.clip(difference / (limit or 1.0), -1, 1)
    out = np.empty((*difference.shape, 4), np.uint8)
    out[..., :3] = np.where((share > 0)[..., None], MORE, LESS)
    out[..., 3] = np.rint(255 * np.abs(share))
    return out
