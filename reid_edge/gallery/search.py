"""Search: the tracklets whose features are nearest to a query's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from reid_edge.errors import ModelMismatchError, NoSuchObservationError, UsageError
from reid_edge.features import l2_normalised
from reid_edge.gallery import audit
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.entries import Entry, Key, Match, Record, Selection, not_before, parse_id
from reid_edge.gallery.migration import mapped_queries
from reid_edge.gallery.ranking import CANDIDATES, Ranking
from reid_edge.gallery.store import Store
from reid_edge.identity.calibration import Verdict
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
        parts: The queries whose mean it is; empty: it is one itself.
    """

    feature: Feature
    model_hash: str
    source: dict[str, Any]
    tracklet: Key | None = None
    parts: tuple[Query, ...] = ()

    @property
    def each(self) -> tuple[Query, ...]:
        """The queries whose mean it is, or itself."""
        return self.parts or (self,)

    @property
    def tracklets(self) -> frozenset[Key]:
        """The tracklets of the query that are stored themselves."""
        return frozenset(one.tracklet for one in self.each if one.tracklet is not None)

    @property
    def cameras(self) -> tuple[str | None, ...]:
        """The camera of each of its parts; None for a picture."""
        return tuple(None if one.tracklet is None else one.tracklet[0] for one in self.each)


@dataclass(frozen=True)
class Found:
    """A tracklet that a search found.

    Attributes:
        best: Its observation nearest to the query.
        cosine: Cosine of that observation's feature with the query's.
        first_us: First sight of the tracklet.
        last_us: Last sight of it so far.
        similarity: Similarity of its newest observation with the query, relative to strangers; None: not calibrated.
        verdict: What that means.
        mapped: It was stored by another model than the query's, and compared through a map between the two
            (:mod:`reid_edge.gallery.migration`); it has no verdict.
    """

    best: Entry
    cosine: float
    first_us: int
    last_us: int
    similarity: float | None = None
    verdict: Verdict | None = None
    mapped: bool = False


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


def joined_query(queries: Sequence[Query]) -> Query:
    """Make one query of several pictures and observations of one person: the mean of their features.

    On people who were not tuned on, the mean found more than the best of the single answers did (``docs/identity.md``).

    Raises:
        ModelMismatchError: They are of several models.
        UsageError: There is none.
    """
    if not queries:
        raise UsageError("give --image FILE and --bundle FOLDER, or --id ID.")
    models = sorted({query.model_hash for query in queries})
    if len(models) > 1:
        raise ModelMismatchError(
            f"the queries are of {len(models)} models, which cannot be compared: {', '.join(models)}."
        )
    if len(queries) == 1:
        return queries[0]
    mean = l2_normalised(np.stack([query.feature for query in queries]).mean(axis=0)[None])[0]
    return Query(
        feature=mean,
        model_hash=models[0],
        source={"mean_of": [query.source for query in queries]},
        parts=tuple(queries),
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
    ranking: Ranking | None = None,
) -> list[Found]:
    """Return the tracklets nearest to a query, best first; the search is in the audit before it returns.

    Tracklets of other models follow, in the order of their cosines, where the gallery keeps a map between the two
    models: cosines across models are lower than those of one, and are not judged.  What is older than the retention is
    not returned, whether it is deleted yet or not.

    Args:
        store: Gallery to search.
        query: Feature to search for.
        selection: Which observations to compare.
        purpose: Reason in the user's words, for the audit.
        now_us: Time of the search.
        top: Number of tracklets, of each model.
        cameras: ``same`` for the query's own camera only, ``other`` for the other cameras only.
        ranking: How to order the answer and judge it (:func:`~reid_edge.gallery.ranking.ranking_for`); None: exactly by
            cosine, without a verdict.

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
    chosen = not_before(selection, since_us)
    if ranking is None:
        found = [_found(store, match, query, since_us) for match in _best_of_tracklets(store, query, chosen, top)]
    else:
        found = _ranked(store, query, chosen, top, ranking, since_us)
    mapped = _through_maps(store, query)
    for other in mapped:
        nearest = _best_of_tracklets(store, other, chosen, top)
        found += [replace(_found(store, match, other, since_us), mapped=True) for match in nearest]
    detail = {
        "query": query.source,
        "model_hash": query.model_hash,
        **({"mapped_to": [other.model_hash for other in mapped]} if mapped else {}),
        "selection": selection.described(),
        "cameras": cameras,
        "top": top,
        "kept_since_us": since_us,
        **({} if ranking is None else ranking.described()),
        "ids": [one.best.id for one in found],
    }
    audit.record(store, "search", detail, at_us=now_us, purpose=purpose)
    return found


def _through_maps(store: Store, query: Query) -> list[Query]:
    """Return the query as each other model would see it to which there is a map."""
    return [
        replace(query, feature=feature, model_hash=model_hash)
        for model_hash, feature in mapped_queries(store, query.feature, query.model_hash).items()
    ]


def _restricted(selection: Selection, query: Query, cameras: Cameras) -> Selection:
    if cameras == "all":
        return selection
    own = tuple(sorted({camera for camera, _, _ in query.tracklets}))
    if not own:
        raise UsageError("--same-camera and --other-cameras are for a search by --id: an image has no camera.")
    if cameras == "other":
        return replace(selection, not_cameras=(*selection.not_cameras, *own))
    same = tuple(camera for camera in own if not selection.cameras or camera in selection.cameras)
    if not same:
        raise UsageError(f"--same-camera means {', '.join(own)}, which is not among those of --camera.")
    return replace(selection, cameras=same)


def _best_of_tracklets(store: Store, query: Query, selection: Selection, top: int) -> list[Match]:
    """Return the nearest observation of each of the nearest tracklets."""
    best: dict[Key, Match] = {}
    for match in _nearest(store, query.feature, query, selection, top):
        best.setdefault(match.entry.tracklet, match)
    return list(best.values())[:top]


def _nearest(store: Store, feature: Feature, query: Query, selection: Selection, tracklets: int) -> list[Match]:
    """Return the observations nearest to a feature, of so many tracklets other than the query's, if there are."""
    wanted = (tracklets + 1) * OBSERVATIONS_OF_A_TRACKLET
    while True:
        wanted = min(wanted, MOST_OBSERVATIONS)
        matches = store.search(feature, model_hash=query.model_hash, selection=selection, top=wanted)
        others = [match for match in matches if match.entry.tracklet not in query.tracklets]
        held = {match.entry.tracklet for match in others}
        if len(held) >= tracklets or len(matches) < wanted or wanted == MOST_OBSERVATIONS:
            return others
        wanted *= 4


def _ranked(store: Store, query: Query, selection: Selection, top: int, ranking: Ranking, since_us: int) -> list[Found]:
    """Return the tracklets that are best by a ranking, with verdicts if it is calibrated."""
    feature = ranking.mean([(one.feature, camera) for one, camera in zip(query.each, query.cameras, strict=True)])
    matches = _nearest(store, feature, query, selection, max(top, CANDIDATES))
    found = [_found(store, match, query, since_us) for match in ranking.best(feature, matches, top)]
    if not found or not ranking.calibrated:
        return found
    several = len(store.models()) > 1  # else the model need not be looked at, which takes a store longer
    compared = ranking.compared(store.span(selection, query.model_hash if several else None).observations)
    return [_judged(store, one, feature, query, ranking, compared) for one in found]


def _found(store: Store, match: Match, query: Query, since_us: int) -> Found:
    entry = match.entry
    span = store.span(not_before(entry.whole_tracklet, since_us))
    first_us = entry.first_us if span.first_us is None else span.first_us
    last_us = entry.last_us if span.last_us is None else span.last_us
    return Found(entry, min(1.0, float(match.feature @ query.feature)), first_us, last_us)


def _judged(store: Store, one: Found, feature: Feature, query: Query, ranking: Ranking, compared: int) -> Found:
    """Return what was found with its verdict, by its newest observation, as the calibration compared tracklets."""
    spans = store.tracklets(one.best.whole_tracklet, limit=1)
    seq = spans[0].seq if spans else one.best.seq
    records = store.find(one.best.camera, one.best.incarnation, seq)
    newest = next((record for record in records if record.entry.incarnation == one.best.incarnation), None)
    judged = None if newest is None else ranking.judged(feature, query.cameras, newest, compared)
    return one if judged is None else replace(one, similarity=judged[0], verdict=judged[1])
