"""Centring: take off what all features of one camera have in common, as far as there is evidence of it.

A camera's light and angle move the features of everybody whom it sees in one direction.  The mean feature of a camera
estimates that, but the mean of few people is mostly these people.  The offset of camera c is therefore shrunk towards
the mean of all cameras, as in a one-way analysis of variance with random effects (empirical Bayes; Efron and Morris,
"Stein's estimation rule and its competitors", JASA 1973): w_c = t² / (t² + s²/n_c), with s² the variance within
cameras, t² that between them beyond what s² explains, and n_c the camera's number of tracklets.  With no difference
between cameras, or few tracklets, w_c is near 0 and centring changes little.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reid_edge.errors import MixedModelsError
from reid_edge.features import l2_normalised
from reid_edge.identity.sightings import Sightings
from reid_edge.types import Feature, Features

Vector = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Tracklets of all cameras below which nothing is taken off.
LEAST_TRACKLETS = 20
#: A camera whose variance is below this share of the others' sees one person, or two, again and again.
DIVERSE_SHARE = 0.8
#: Share of the variance within a camera that is left when it sees one person only (measured: 0.41 on Market-1501).
ONE_PERSON_SHARE = 0.4
#: Standard deviations of a normal distribution that one value in a thousand exceeds.
ONE_IN_A_THOUSAND = 3.09
#: Tracklets of a camera below which it is not said whether it has moved.
LEAST_FOR_MOVED = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraMean:
    """What is known of one camera's features.

    Attributes:
        camera: Its name.
        mean: D float64, the mean of its tracklets' features.
        variance: Mean squared distance of its features from their mean; 0 for one tracklet.
        tracklets: Number of its tracklets.
        people: Number of tracklets that the mean is worth: fewer than ``tracklets`` if they resemble one another so
            much that they show one person again and again.
        weight: w_c, the share of its offset from the mean of all that is taken off: 0 to 1.
    """

    camera: str
    mean: Vector
    variance: float
    tracklets: int
    people: float
    weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Centring:
    """What is taken off the features of each camera.

    Attributes:
        model_hash: The model whose features it is for.
        mean: D float64, the mean of all.
        weight: Share of ``mean`` that is taken off: 0 while there are fewer than 20 tracklets.
        cameras: The cameras by name; of one that was moved, each view by the name of :meth:`view`.
        version: Digest of all of this: features centred by different versions are not to be compared.
        moves: When cameras were moved, by name, ascending: since then another view with a mean of its own.
    """

    model_hash: str
    mean: Vector
    weight: float
    cameras: dict[str, CameraMean]
    version: str
    moves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def on(self) -> bool:
        """Whether it changes features at all."""
        return self.weight > 0

    def offset(self, camera: str) -> Vector:
        """Return what is taken off the features of a camera, D float64; of an unknown one, what all share."""
        shared = self.weight * self.mean
        known = self.cameras.get(camera)
        return shared if known is None else shared + known.weight * (known.mean - self.mean)

    def view(self, camera: str, at_s: float = math.inf) -> str:
        """Return the name of a camera's view at a time: the camera's, until it was moved."""
        return _view(camera, at_s, self.moves)

    def applied(self, sightings: Sightings) -> Features:
        """Return the centred features, N×D float32 of unit length.

        Raises:
            MixedModelsError: The sightings are of another model.
        """
        if sightings.model_hash != self.model_hash:
            raise MixedModelsError(
                f"this centring is of features of the model {self.model_hash}, the sightings are of "
                f"{sightings.model_hash}; learn the centring of that model."
            )
        names, numbers = _views(sightings, self.moves)
        offsets = np.stack([self.offset(name) for name in names]).astype(np.float32)
        return _centred(sightings.features, offsets[numbers])

    def applied_to(self, feature: Feature, camera: str, at_s: float = math.inf) -> Feature:
        """Return one centred feature, D float32 of unit length, of a camera or of a picture of no known one.

        Args:
            feature: D float32, unit length.
            camera: Name of the camera.
            at_s: When it was first seen; infinity: by the camera's newest view.
        """
        offset = self.offset(self.view(camera, at_s)).astype(np.float32)
        centred: Feature = _centred(feature[None], offset[None])[0]
        return centred


def learnt_centring(sightings: Sightings, moves: Mapping[str, tuple[float, ...]] | None = None) -> Centring:
    """Learn what to take off each camera's features.

    Each tracklet counts once.  With fewer than 20 tracklets nothing is taken off; with one camera, only the mean.

    Args:
        sightings: N tracklets, at least one.
        moves: When cameras were moved (:func:`reid_edge.identity.moves.moves`); None: none was.
    """
    moves = moves or {}
    sightings = sightings.taken(sightings.order())  # sums of the same order are the same to the last bit
    names, numbers = _views(sightings, moves)
    features = sightings.features.astype(np.float64)
    counts = np.bincount(numbers, minlength=len(names)).astype(np.float64)
    means = np.stack([features[numbers == place].mean(axis=0) for place in range(len(names))])
    squares = np.bincount(numbers, weights=((features - means[numbers]) ** 2).sum(axis=1), minlength=len(names))
    within = float(squares.sum() / max(len(sightings) - len(names), 1))
    mean = means.mean(axis=0)
    enough = len(sightings) >= LEAST_TRACKLETS
    worth = np.array([_people(square, count, within) for square, count in zip(squares, counts, strict=True)])
    between = _variance_between(means, mean, within, worth) if enough else 0.0
    weights = between / (between + within / worth) if between > 0 else np.zeros(len(names))
    cameras = {
        name: CameraMean(
            camera=name,
            mean=means[place],
            variance=float(squares[place] / max(counts[place] - 1, 1)),
            tracklets=int(counts[place]),
            people=float(worth[place]),
            weight=float(weights[place]),
        )
        for place, name in enumerate(names)
    }
    weight = _shared_weight(mean, within, worth) if enough else 0.0
    version = centring_version(sightings.model_hash, mean, weight, cameras)
    return Centring(
        model_hash=sightings.model_hash, mean=mean, weight=weight, cameras=cameras, version=version, moves=dict(moves)
    )


def moved_cameras(centring: Centring, recent: Sightings) -> dict[str, float]:
    """Return the cameras whose mean has changed: they were moved, turned, or their light is another.

    Compares the mean of the recent tracklets with the one learnt, in units of its standard error.  Under no change the
    squared distance is about a scaled χ² whose degrees of freedom are the effective number of dimensions; the limit is
    its normal approximation (Wilson and Hilferty 1931) for one false alarm in a thousand.  Learn the centring anew for
    what such a camera sees from then on.

    Args:
        centring: What was learnt earlier.
        recent: Tracklets since; cameras with fewer than 20 of them, then or now, are left out.

    Returns:
        The distance of each such camera over the limit, more than 1, by name.
    """
    moved = {}
    numbers = recent.camera_numbers
    for place, name in enumerate(recent.camera_names):
        known = centring.cameras.get(centring.view(name))
        rows = recent.features[numbers == place].astype(np.float64)
        if known is None or min(known.tracklets, len(rows)) < LEAST_FOR_MOVED:
            continue
        limit = difference_limit(rows, ONE_IN_A_THOUSAND) * (1 / min(known.people, known.tracklets) + 1 / len(rows))
        over = float(((rows.mean(axis=0) - known.mean) ** 2).sum() / limit)
        if over > 1:
            moved[name] = over
    return moved


def difference_limit(features: Features | Vector, deviations: float) -> float:
    """Return which squared distance of two means of features like these is more than chance explains.

    It is to be multiplied by the sum of the reciprocals of the numbers of features behind the two means.

    Args:
        features: N×D, at least two.
        deviations: Standard deviations of a normal distribution that chance does not exceed.
    """
    spread = features - features.mean(axis=0)
    gram = spread.T @ spread if len(spread) > spread.shape[1] else spread @ spread.T
    total, squared = float(np.trace(gram)), float((gram**2).sum())
    freedom = total**2 / squared if squared > 0 else 1.0  # features that are all the same
    quantile = (1 - 2 / (9 * freedom) + deviations * np.sqrt(2 / (9 * freedom))) ** 3
    return max(total / (len(features) - 1) * float(quantile), 1e-12)


def _view(camera: str, at_s: float, moves: Mapping[str, tuple[float, ...]]) -> str:
    number = bisect.bisect_right(moves.get(camera, ()), at_s)
    return camera if number == 0 else f"{camera}/{number}"  # no name of a camera has a slash


def _views(sightings: Sightings, moves: Mapping[str, tuple[float, ...]]) -> tuple[tuple[str, ...], Rows]:
    """Return the views, each once in alphabetical order, and the place of each tracklet's view among them."""
    if not moves:
        return sightings.camera_names, sightings.camera_numbers
    of_each = [
        _view(camera, at_s, moves) for camera, at_s in zip(sightings.cameras, sightings.first_s.tolist(), strict=True)
    ]
    names = tuple(sorted(set(of_each)))
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places[name] for name in of_each], np.int64)


def _centred(features: Features, offsets: Features) -> Features:
    """Take offsets off; a feature of which nothing is left stays as it was."""
    left = features - offsets
    lengths = np.einsum("nd,nd->n", left, left)
    return l2_normalised(np.where(lengths[:, None] > 1e-8, left, features))


def _people(squares: float, tracklets: float, within: float) -> float:
    """Return the number of tracklets that a camera's mean is worth."""
    share = squares / max(tracklets - 1, 1) / max(within, 1e-12)
    if tracklets < 2 or share >= DIVERSE_SHARE:
        return tracklets
    apart = float(np.clip((share - ONE_PERSON_SHARE) / (1 - ONE_PERSON_SHARE), 0, 1))
    return min(tracklets, 1 / (1 - apart))


def _variance_between(means: Vector, mean: Vector, within: float, worth: Vector) -> float:
    if len(means) < 2:
        return 0.0
    return max(0.0, float(((means - mean) ** 2).sum() / (len(means) - 1) - within * (1 / worth).mean()))


def _shared_weight(mean: Vector, within: float, worth: Vector) -> float:
    """Return the share of the common mean that is more than chance."""
    squared = float(mean @ mean)
    chance = within * float((1 / worth).mean()) / len(worth)
    return max(0.0, squared - chance) / max(squared, 1e-12)


def centring_version(model_hash: str, mean: Vector, weight: float, cameras: dict[str, CameraMean]) -> str:
    """Return the digest that tells centrings apart; ``none`` if nothing is taken off."""
    if weight == 0 and all(camera.weight == 0 for camera in cameras.values()):
        return "none"
    digest = hashlib.sha256(f"{model_hash} {weight:.6g} ".encode())
    digest.update(mean.astype("<f4").tobytes())
    for name in sorted(cameras):
        digest.update(f"{name} {cameras[name].weight:.6g} ".encode())
        digest.update(cameras[name].mean.astype("<f4").tobytes())
    return digest.hexdigest()[:16]
