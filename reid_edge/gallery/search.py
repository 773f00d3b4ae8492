"""Search: the tracklets whose features are nearest to a query's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from reid_edge.errors import ModelMismatchError, NoSuchObservationError, UsageError
from reid_edge.features import l2_normalised
from reid_edge.gallery import audit
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.entries import Entry, Key, Match, Record, Selection, not_before, parse_id
from reid_edge.gallery.store import Store
from reid_edge.types import Feature

#: Most tracklets of an answer: more than a person looks at; keeps an audit entry small.
MOST_TRACKLETS = 200
#: Usual number of observations of a tracklet: at first sight, at intervals, and at its end.
OBSERVATIONS_OF_A_TRACKLET = 8
#: Most observations that every store returns at once.
MOST_OBSERVATIONS = 16_000

Cameras = Literal["all", "same", "other"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A feature to search for.

    Attributes:
        feature: D float32, unit length.
        model_hash: The model that made it.
        source: Origin of the feature, for the audit: ``{"image_sha256": …}`` or ``{"id": …}``; never the feature.
        tracklet: Tracklet of the query if it is stored itself; left out of the answer.
    """

    feature: Feature
    model_hash: str
    source: dict[str, Any]
    tracklet: Key | None = None


@dataclass(frozen=True)
class Found:
    """A tracklet that a search found.

    Attributes:
        best: Its observation nearest to the query.
        cosine: Cosine of that observation's feature with the query's.
        first_us: First sight of the tracklet.
        last_us: Last sight of it so far.
    """

    best: Entry
    cosine: float
    first_us: int
    last_us: int


def require_model(store: Store, model_hash: str) -> None:
    """Check, before any work, that the gallery holds features of a model.

    Raises:
        ModelMismatchError: It does not hold any.
    """
    held = [model.model_hash for model in store.models()]
    if model_hash not in held:
        listed = f"those of {', '.join(held)}; search with the bundle that the cameras use" if held else "none yet"
        raise ModelMismatchError(
            f"features of the model {model_hash} cannot be compared with those in {store.name}: it holds {listed}."
        )


def query_by_feature(
    feature: Feature, model_hash: str, *, image_sha256: str, box: Sequence[float] | None = None
) -> Query:
    """Make the query for a feature of an image.

    Args:
        feature: D float32, of any length.
        model_hash: The model that made it.
        image_sha256: Digest of the image file, for the audit.
        box: The part of the image that was looked at, x1 y1 x2 y2 in pixels, for the audit; None for all of it.
    """
    unit = l2_normalised(feature[None])[0]
    source = {"image_sha256": image_sha256, "box": None if box is None else [float(edge) for edge in box]}
    return Query(feature=unit, model_hash=model_hash, source=source)


def query_of(record: Record) -> Query:
    """Make the query for the person of a stored observation."""
    return Query(
        feature=l2_normalised(record.feature[None])[0],
        model_hash=record.entry.model_hash,
        source={"id": record.entry.id},
        tracklet=record.entry.tracklet,
    )


def find_one(store: Store, text: str, *, now_us: int) -> Record:
    """Return the record of an id.

    Args:
        store: Which gallery.
        text: The id as a person types it.
        now_us: What is older than the retention by then is not found, whether it is deleted yet or not.

    Raises:
        UsageError: The text is not an id, or several observations could have it.
        NoSuchObservationError: Nothing is stored under it.
    """
    since_us = kept_since_us(store, now_us)
    found = [record for record in store.find(*parse_id(text)) if record.entry.last_us >= since_us]
    if not found:
        raise NoSuchObservationError(
            f"{store.name} holds nothing under '{text}': it was never stored, has expired, or was erased."
        )
    if len(found) > 1:
        raise UsageError(f"'{text}' could be {', '.join(record.entry.id for record in found)}: give more of the epoch.")
    return found[0]


def search(
    store: Store,
    query: Query,
    *,
    selection: Selection,
    purpose: str,
    now_us: int,
    top: int = 10,
    cameras: Cameras = "all",
) -> list[Found]:
    """Return the tracklets nearest to a query, best first; the search is in the audit before it returns.

    What is older than the retention is not returned, whether it is deleted yet or not.

    Args:
        store: Gallery to search.
        query: Feature to search for.
        selection: Which observations to compare.
        purpose: Reason in the user's words, for the audit.
        now_us: Time of the search.
        top: Number of tracklets.
        cameras: ``same`` for the query's own camera only, ``other`` for the other cameras only.

    Raises:
        UsageError: There is no purpose, ``top`` is out of range, or ``cameras`` is given for a query of no camera.
        ModelMismatchError: The gallery holds no features of the query's model.
        StoreError: The store fails.
    """
    purpose = audit.checked_purpose(purpose)
    if not 1 <= top <= MOST_TRACKLETS:
        raise UsageError(f"expected 1 to {MOST_TRACKLETS} tracklets (--top); got {top}.")
    require_model(store, query.model_hash)
    selection = _restricted(selection, query, cameras)
    since_us = kept_since_us(store, now_us)
    best = _best_of_tracklets(store, query, not_before(selection, since_us), top)
    found = [_found(store, match, since_us) for match in best]
    detail = {
        "query": query.source,
        "model_hash": query.model_hash,
        "selection": selection.described(),
        "cameras": cameras,
        "top": top,
        "kept_since_us": since_us,
        "ids": [one.best.id for one in found],
    }
    audit.record(store, "search", detail, at_us=now_us, purpose=purpose)
    return found


def _restricted(selection: Selection, query: Query, cameras: Cameras) -> Selection:
    if cameras == "all":
        return selection
    if query.tracklet is None:
        raise UsageError("--same-camera and --other-cameras are for a search by --id: an image has no camera.")
    camera = query.tracklet[0]
    if cameras == "other":
        return replace(selection, not_cameras=(*selection.not_cameras, camera))
    if selection.cameras and camera not in selection.cameras:
        raise UsageError(f"--same-camera means {camera}, which is not among those of --camera.")
    return replace(selection, cameras=(camera,))


def _best_of_tracklets(store: Store, query: Query, selection: Selection, top: int) -> list[Match]:
    """Return the nearest observation of each of the nearest tracklets."""
    wanted = (top + 1) * OBSERVATIONS_OF_A_TRACKLET
    while True:
        wanted = min(wanted, MOST_OBSERVATIONS)
        matches = store.search(query.feature, model_hash=query.model_hash, selection=selection, top=wanted)
        best: dict[Key, Match] = {}
        for match in matches:
            best.setdefault(match.entry.tracklet, match)
        if query.tracklet is not None:
            best.pop(query.tracklet, None)
        if len(best) >= top or len(matches) < wanted or wanted == MOST_OBSERVATIONS:
            return list(best.values())[:top]
        wanted *= 4


def _found(store: Store, match: Match, since_us: int) -> Found:
    entry = match.entry
    span = store.span(not_before(entry.whole_tracklet, since_us))
    first_us = entry.first_us if span.first_us is None else span.first_us
    last_us = entry.last_us if span.last_us is None else span.last_us
    return Found(entry, match.cosine, first_us, last_us)
