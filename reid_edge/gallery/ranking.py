"""How a search orders what a store has found, and says what the similarities mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_edge.errors import StoreError, UsageError
from reid_edge.features import l2_normalised
from reid_edge.gallery.calibrating import comparison_for
from reid_edge.gallery.comparison import Comparison
from reid_edge.gallery.entries import Key, Match, Record
from reid_edge.gallery.store import Store
from reid_edge.identity.calibration import FALSE_MATCH_RATE, Verdict
from reid_edge.identity.reranking import k_reciprocal_distances
from reid_edge.types import Feature, Features

#: Tracklets that are compared once more after the store's search, at least.
CANDIDATES = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """How to order candidates and judge them.

    Attributes:
        comparison: What is known of the model's features in this gallery; None: too little.
        rerank: Whether candidates that share neighbours with the query come first.
        false_match_rate: Highest rate of false matches of *same*.
        trouble: Why what is stored could not be used; "" if nothing is wrong.
    """

    comparison: Comparison | None = None
    rerank: bool = False
    false_match_rate: float = FALSE_MATCH_RATE
    trouble: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether it is known what similarities mean."""
        return self.comparison is not None and self.comparison.calibration is not None

    def centred(self, feature: Feature, camera: str | None) -> Feature:
        """Return a feature, D float32 of unit length, as it is compared; None: of no camera, as a picture is."""
        if self.comparison is None:
            return feature
        centring = self.comparison.scale.centring
        # "" is no camera's name: of a picture only what all cameras share is taken off.
        return centring.applied_to(feature, camera or "")

    def mean(self, features: Sequence[tuple[Feature, str | None]]) -> Feature:
        """Return the mean of features with their cameras, centred, at unit length."""
        rows = np.stack([self.centred(feature, camera) for feature, camera in features])
        mean: Feature = l2_normalised(rows.mean(axis=0)[None])[0]
        return mean

    def best(self, query: Feature, matches: Sequence[Match], top: int) -> list[Match]:
        """Return the best observation of each of the best tracklets, best first.

        Args:
            query: D float32 of unit length, centred.
            matches: What the store found.
            top: Number of tracklets.
        """
        if not matches:
            return []
        rows = self._rows(matches)
        scores = rows @ query
        places: dict[Key, int] = {}
        for place in np.argsort(-scores, kind="stable").tolist():
            places.setdefault(matches[place].entry.tracklet, place)
        order = list(places.values())
        if self.rerank:
            nearest, rest = order[:CANDIDATES], order[CANDIDATES:]
            distances = k_reciprocal_distances(query, rows[nearest])
            order = [nearest[place] for place in np.argsort(distances, kind="stable")] + rest
        return [matches[place] for place in order[:top]]

    def _rows(self, matches: Sequence[Match]) -> Features:
        features = l2_normalised(np.stack([match.feature for match in matches]))
        if self.comparison is None:
            return features
        offsets = {
            camera: self.comparison.scale.centring.offset(camera).astype(np.float32)
            for camera in {match.entry.camera for match in matches}
        }
        left: Features = l2_normalised(features - np.stack([offsets[match.entry.camera] for match in matches]))
        return left

    def compared(self, observations: int) -> int:
        """Return about how many tracklets so many observations are of."""
        if self.comparison is None:
            return max(1, observations)
        return max(1, round(observations * self.comparison.tracklets / max(self.comparison.observations, 1)))

    def judged(
        self, query: Feature, cameras: Sequence[str | None], newest: Record, compared: int
    ) -> tuple[float, Verdict] | None:
        """Return the similarity of a tracklet with a query, and what it means; None without a calibration.

        Args:
            query: D float32 of unit length, centred.
            cameras: The query's cameras.
            newest: The newest observation of the tracklet, as calibrations compare it.
            compared: Number of tracklets that were compared.
        """
        if self.comparison is None or self.comparison.calibration is None:
            return None
        other = self.centred(l2_normalised(newest.feature[None])[0], newest.entry.camera)
        similarity = float(self.comparison.scale.strangers.similarity(query[None], other[None])[0])
        verdict = self.comparison.calibration.verdict(
            similarity,
            compared=compared,
            false_match_rate=self.false_match_rate,
            one_camera=set(cameras) == {newest.entry.camera},
        )
        return similarity, verdict

    def described(self) -> dict[str, Any]:
        """Return what decides the order, for the audit."""
        centring = "none" if self.comparison is None else self.comparison.scale.centring.version
        calibration = self.comparison.scale.version if self.comparison is not None and self.calibrated else None
        return {"centring": centring, "rerank": self.rerank, "calibration": calibration}


def ranking_for(
    store: Store, model_hash: str, *, now_us: int, rerank: bool = False, false_match_rate: float = FALSE_MATCH_RATE
) -> Ranking:
    """Return how features of a model are ranked in a gallery, as far as there is evidence for it.

    Args:
        store: Which gallery.
        model_hash: The model of the query.
        now_us: This moment.
        rerank: Whether candidates that share neighbours with the query come first.
        false_match_rate: Highest rate of false matches of *same*.

    Raises:
        UsageError: A rate that is not above 0 and below 1.
    """
    if not 0 < false_match_rate < 1:
        raise UsageError(f"expected --false-match-rate above 0 and below 1, got {false_match_rate:g}.")
    try:
        known, trouble = comparison_for(store, model_hash, now_us=now_us), ""
    except StoreError as error:  # a search still finds, in the exact order of cosines
        known, trouble = None, str(error)
    return Ranking(comparison=known, rerank=rerank, false_match_rate=false_match_rate, trouble=trouble)
