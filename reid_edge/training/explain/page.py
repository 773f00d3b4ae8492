"""One HTML page that holds everything: pictures, figures and style.  It has no script and asks no network."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from importlib.resources import files

from reid_edge.errors import MissingExtraError
from reid_edge.training.explain.clusters import Cluster, Clustering
from reid_edge.training.explain.explanation import CELL, PRIVACY, Explanation, signed
from reid_edge.training.explain.pictures import data_uri, difference_picture, overlay, picture

try:
    import jinja2
except ModuleNotFoundError as error:
    raise MissingExtraError("jinja2", "train", "making a page") from error

#: Heights of pictures, pixels: of a cluster's images, and beside an activation map.
THUMBNAIL = 128
LARGE = 192

_HERE = files("reid_edge.training.explain")


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An image on the page."""

    address: str
    name: str


@dataclass(frozen=True, kw_only=True)
class _Bar:
    """One stream of a cluster: numbers as text, and where its bar lies, in percent of the whole."""

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
    """The page as text.

    Raises:
        FrameError: An image that is no longer readable.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    clustering = explanation.clustering
    return environment.from_string(_asset("page.html.j2")).render(
        explanation=explanation,
        clustering=clustering,
        cards=[] if clustering is None else _cards(explanation, clustering),
        overall=[] if clustering is None else zip(explanation.stream_names(), clustering.overall(), strict=True),
        maps=_maps(explanation),
        shape=explanation.maps.shape[1:],
        cell=CELL,
        privacy=PRIVACY,
        portrait=explanation.info.size[0] >= explanation.info.size[1],
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=_asset("page.css"),
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
    return _Picture(address=data_uri(picture(path, explanation.picture_size(THUMBNAIL))), name=path.name)


def _maps(explanation: Explanation) -> list[tuple[_Picture, _Picture]]:
    """Image and overlay, pair by pair."""
    pairs = []
    for index, activations in zip(explanation.shown, explanation.maps, strict=True):
        path = explanation.paths[index]
        image = picture(path, explanation.picture_size(LARGE))
        addresses = data_uri(image), data_uri(overlay(image, activations))
        pairs.append((_Picture(address=addresses[0], name=path.name), _Picture(address=addresses[1], name=path.name)))
    return pairs


def _asset(name: str) -> str:
    return _HERE.joinpath(name).read_text(encoding="utf-8")
