"""Calibration: which similarity is enough, from pairs that need no labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError, UnsupportedRateError
from reid_edge.identity.centring import Centring, learnt_centring
from reid_edge.identity.intervals import Rate, check_supported, error_rate, errors_allowed
from reid_edge.identity.sightings import Sightings
from reid_edge.identity.strangers import Strangers, measured_strangers
from reid_edge.types import Features

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.integer]
GenuineSource = Literal["labels", "parts of tracklets", "none"]
Word = Literal["same", "unsure", "other"]

#: Highest rate of false matches of ``same``, for each comparison, and of misses of ``other``.
FALSE_MATCH_RATE, MISS_RATE = 0.01, 0.05
#: Number of strangers expected to be as similar, among all compared, from which nothing is ``same``.
MOST_BY_CHANCE = 0.2
#: Least number of pairs from which a tail is fitted.
LEAST_TAIL = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """How the features of a gallery are compared.

    Attributes:
        centring: What is taken off the features of each camera.
        strangers: What similarities are relative to.
    """

    centring: Centring
    strangers: Strangers

    @property
    def version(self) -> str:
        """Digest of all of this: similarities of different versions are not to be compared."""
        digest = hashlib.sha256(f"{self.centring.version} {self.strangers.rest:.6g} ".encode())
        for array in (self.strangers.mean, self.strangers.variances, self.strangers.axes):
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()[:16]

    def of_pairs(self, sightings: Sightings, pairs: Rows) -> Floats:
        """Return the similarities of pairs of rows, P×2: P."""
        features = self.centring.applied(sightings)
        return self.strangers.similarity(features[pairs[:, 0]], features[pairs[:, 1]])

    def of_parts(self, parts: Parts) -> Floats:
        """Return the similarity of both parts of each tracklet: P."""
        first, second = (
            np.stack([self.centring.applied_to(row, camera) for row, camera in zip(side, parts.cameras, strict=True)])
            for side in (parts.first, parts.second)
        )
        return self.strangers.similarity(first, second)


def measured_scale(sightings: Sightings, *, centring: Centring | None = None) -> Scale:
    """Learn how to compare the features of a gallery.

    Args:
        sightings: N tracklets.
        centring: How to centre; None: as the sightings tell.

    Raises:
        InputError: Fewer than 20 tracklets.
    """
    centring = centring or learnt_centring(sightings)
    return Scale(centring=centring, strangers=measured_strangers(centring.applied(sightings)[sightings.order()]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Features of two parts of each of P tracklets that have no crop in common, not centred.

    Attributes:
        first: P×D float32, unit length.
        second: Likewise.
        cameras: P cameras.
    """

    first: Features
    second: Features
    cameras: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Both error rates at one similarity.

    Attributes:
        similarity: Similarity from which two tracklets are called the same person.
        false_match: Share of two people that are called the same.
        miss: Share of pairs of one person that are not; None: no such pairs are known.
    """

    similarity: float
    false_match: Rate
    miss: Rate | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a similarity means.

    Attributes:
        word: ``same``, ``unsure`` or ``other``.
        false_match: Share of the pairs of two people that are at least as similar.
        miss: Share of the pairs of one person that are less similar; None: no such pairs are known.
        by_chance: Number of strangers expected to be at least as similar, of those compared.
    """

    word: Word
    false_match: Rate
    miss: Rate | None
    by_chance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Similarities of pairs that are known to be two people, and of pairs that are known to be one.

    Attributes:
        model_hash: The model of the features.
        scale_version: The version of the scale on which the pairs were compared.
        impostors: Similarities of pairs of two people, ascending.
        genuine: Those of pairs of one person, ascending; may be empty.
        impostor_tracklets: Number of different tracklets in the impostor pairs: as many pairs are independent at most.
        genuine_tracklets: The same of the genuine pairs.
        genuine_from: ``labels``; or ``parts of tracklets``, which are of one camera and a few seconds apart, so that
            more is missed between cameras than these say.

    Raises:
        InputError: There is no impostor pair, or a similarity that is not finite.
    """

    model_hash: str
    scale_version: str
    impostors: Floats
    genuine: Floats
    impostor_tracklets: int
    genuine_tracklets: int
    genuine_from: GenuineSource

    def __post_init__(self) -> None:
        if not len(self.impostors):
            raise InputError(
                "no two people are known: no camera has seen two tracklets at the same time. "
                "Give labelled pairs of two people, or wait until two people pass one camera together."
            )
        for name in ("impostors", "genuine"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"expected finite similarities of {name}, got NaN or infinity.")
            object.__setattr__(self, name, np.sort(np.asarray(getattr(self, name), np.float64)))

    def false_match(self, similarity: float) -> Rate:
        """Return the share of pairs of two people that are at least so similar."""
        errors = len(self.impostors) - int(np.searchsorted(self.impostors, similarity, side="left"))
        return error_rate(errors, len(self.impostors), min(len(self.impostors), self.impostor_tracklets))

    def miss(self, similarity: float) -> Rate | None:
        """Return the share of pairs of one person that are less similar; None: no such pairs are known."""
        if not len(self.genuine):
            return None
        errors = int(np.searchsorted(self.genuine, similarity, side="left"))
        return error_rate(errors, len(self.genuine), min(len(self.genuine), self.genuine_tracklets))

    def curve(self, similarities: Sequence[float]) -> tuple[CurvePoint, ...]:
        """Return both rates at some similarities."""
        return tuple(
            CurvePoint(similarity=one, false_match=self.false_match(one), miss=self.miss(one)) for one in similarities
        )

    def similarity_for(self, false_match_rate: float) -> float:
        """Return the lowest similarity at which the upper limit of false matches is at most a rate.

        Raises:
            InputError: The rate is not above 0 and below 1.
            UnsupportedRateError: The pairs are too few for it.
        """
        independent = min(len(self.impostors), self.impostor_tracklets)
        check_supported(false_match_rate, independent, kind="pairs of two people")
        allowed = errors_allowed(false_match_rate, len(self.impostors), independent)
        return float(np.nextafter(self.impostors[len(self.impostors) - allowed - 1], np.inf))

    def similarity_below_which(self, miss_rate: float) -> float:
        """Return the highest similarity below which the upper limit of misses is at most a rate.

        Raises:
            InputError: The rate is not above 0 and below 1.
            UnsupportedRateError: The pairs are too few for it.
        """
        independent = min(len(self.genuine), self.genuine_tracklets)
        check_supported(miss_rate, independent, kind="pairs of one person")
        return float(self.genuine[errors_allowed(miss_rate, len(self.genuine), independent)])

    def by_chance(self, similarity: float, compared: int) -> float:
        """Return how many of so many strangers are expected to be at least so similar.

        Among the most similar tenth of the pairs an exponential tail is fitted, which goes on where no pair is left
        (excesses over a high threshold: Pickands, Annals of Statistics 1975, with shape 0).
        """
        pairs = len(self.impostors)
        tail = max(LEAST_TAIL, pairs // 10)
        if pairs < 2 * tail or similarity <= self.impostors[-tail - 1]:
            errors = pairs - int(np.searchsorted(self.impostors, similarity, side="left"))
            return compared * (errors + 1) / (pairs + 1)
        start = float(self.impostors[-tail - 1])
        excess = max(float((self.impostors[-tail:] - start).mean()), 1e-9)
        return float(compared * tail / pairs * np.exp(-(similarity - start) / excess))

    def verdict(
        self,
        similarity: float,
        *,
        compared: int = 1,
        false_match_rate: float = FALSE_MATCH_RATE,
        miss_rate: float = MISS_RATE,
        one_camera: bool = False,
    ) -> Verdict:
        """Return what a similarity means, with the rates behind it.

        ``same`` needs a false match rate of at most ``false_match_rate`` for each comparison, and that fewer than 0.2
        strangers are expected to be as similar among all that were compared.  ``other`` needs a rate of misses of at
        most ``miss_rate``; between cameras parts of tracklets do not tell it.  What the pairs cannot support is
        ``unsure``.

        Args:
            similarity: On the same scale.
            compared: Number of tracklets that were compared.
            false_match_rate: Highest rate of false matches of ``same``.
            miss_rate: Highest rate of misses of ``other``.
            one_camera: Whether both are of one camera.

        Raises:
            InputError: A rate that is not above 0 and below 1, or nothing compared.
        """
        if compared < 1:
            raise InputError(f"expected at least 1 tracklet compared, got {compared}.")
        by_chance = self.by_chance(similarity, compared)
        misses_known = self.genuine_from == "labels" or one_camera
        word: Word = "unsure"
        if _reached(similarity, self.similarity_for, false_match_rate) and by_chance < MOST_BY_CHANCE:
            word = "same"
        elif misses_known and not _reached(similarity, self.similarity_below_which, miss_rate, otherwise=True):
            word = "other"
        return Verdict(
            word=word, false_match=self.false_match(similarity), miss=self.miss(similarity), by_chance=by_chance
        )

    def log_likelihood_ratio(self, similarity: float) -> float:
        """Return how much a similarity speaks for one person, natural logarithm; 0 without genuine pairs.

        By isotonic regression of the pairs' labels (Zadrozny and Elkan, KDD 2002), with one pair of each kind added at
        both ends, so that no ratio is infinite.
        """
        if not len(self.genuine):
            return 0.0
        ends = np.array([-np.inf, np.inf])
        scores = np.concatenate([self.impostors, ends, self.genuine, ends])
        labels = np.concatenate([np.zeros(len(self.impostors) + 2), np.ones(len(self.genuine) + 2)])
        order = np.lexsort((labels, scores))
        scores, shares = scores[order], _isotonic(labels[order])
        place = int(np.searchsorted(scores, similarity, side="right")) - 1
        share = float(shares[max(place, 0)])
        prior = (len(self.genuine) + 2) / (len(self.impostors) + 2)
        return float(np.log(share / (1 - share) / prior))


def _reached(similarity: float, limit: object, rate: float, *, otherwise: bool = False) -> bool:
    """Return whether a similarity reaches the limit for a rate; ``otherwise`` if the pairs cannot support the rate."""
    assert callable(limit)
    try:
        return bool(similarity >= limit(rate))
    except UnsupportedRateError:
        return otherwise


def calibrated(
    sightings: Sightings,
    impostors: Rows,
    *,
    scale: Scale,
    genuine: Rows | None = None,
    parts: Parts | None = None,
) -> Calibration:
    """Calibrate the similarities of a gallery.

    Args:
        sightings: N tracklets.
        impostors: P×2 rows of two people: ``CannotLink.simultaneous_pairs()``, and labelled ones.
        scale: How to compare them.
        genuine: Q×2 rows of one person, labelled; None: none are.
        parts: Used where no pairs are labelled.

    Raises:
        InputError: There is no impostor pair.
    """
    similar, source, tracklets = np.empty(0), "none", 0
    if genuine is not None and len(genuine):
        similar, source, tracklets = scale.of_pairs(sightings, genuine), "labels", len(np.unique(genuine))
    elif parts is not None and len(parts.cameras):
        similar, source, tracklets = scale.of_parts(parts), "parts of tracklets", len(parts.cameras)
    return Calibration(
        model_hash=sightings.model_hash,
        scale_version=scale.version,
        impostors=scale.of_pairs(sightings, impostors) if len(impostors) else np.empty(0),
        genuine=similar,
        impostor_tracklets=len(np.unique(impostors)),
        genuine_tracklets=tracklets,
        genuine_from=source,  # type: ignore[arg-type]
    )


def _isotonic(labels: Floats) -> Floats:
    """Return the non-decreasing values nearest to the labels, by pooling adjacent violators."""
    sums: list[float] = []
    sizes: list[int] = []
    for label in labels.tolist():
        sums.append(label)
        sizes.append(1)
        while len(sums) > 1 and sums[-2] * sizes[-1] >= sums[-1] * sizes[-2]:
            sums[-2:] = [sums[-2] + sums[-1]]
            sizes[-2:] = [sizes[-2] + sizes[-1]]
    return np.repeat(np.array(sums) / np.array(sizes), sizes)
