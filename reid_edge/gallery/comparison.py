"""What a gallery keeps of how the features of a model compare: centring, strangers and calibration, in one document.

None of it is a feature of somebody: it is learnt from cameras whose mean is worth those of ten people or more, and not
kept where there is none.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError, StoreError
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.documents import read_document, remove_document, write_document
from reid_edge.identity.background import LEAST_TRACKLETS
from reid_edge.identity.calibration import Calibration, Scale, measured_scale
from reid_edge.identity.centring import CameraMean, Centring, centring_version, learnt_centring
from reid_edge.identity.known_pairs import KnownPairs
from reid_edge.identity.sightings import Sightings
from reid_edge.identity.strangers import Strangers
from reid_edge.identity.worth import people_worth

#: Format of the document.
FORMAT = 1
#: A camera's mean that is worth fewer people tells too much of them, and is not kept.
LEAST_PEOPLE = 10.0
TOO_FEW_PEOPLE = "no camera is known to have seen ten people, so that its mean would tell of those whom it has seen"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """How the features of one model are compared in one gallery.

    Attributes:
        scale: Centring and strangers.
        calibration: What similarities mean; None until ``gallery calibrate`` has told.
        made_us: When it was learnt.
        first_us: First sight of any of the tracklets.
        tracklets: Number of tracklets that it was learnt from.
        observations: Number of their observations.
        known: Labelled pairs beside the limit of people; None: no pairs were labelled.
        people: Number of people that each mean in it is worth at least; 0: not known to be ten.
        since_us: What was last seen before was left out, so that it is left out when this is learnt again.
    """

    scale: Scale
    calibration: Calibration | None
    made_us: int
    first_us: int
    tracklets: int
    observations: int
    known: KnownPairs | None = None
    people: float = 0.0
    since_us: int = 0

    @property
    def storable(self) -> bool:
        """Whether it tells of so many people that it may be kept."""
        return self.people >= LEAST_PEOPLE


def learnt_scale(sightings: Sightings) -> tuple[Scale, float]:
    """Learn how features compare from those cameras alone whose mean is worth ten people or more.

    Where there are none, or they have fewer than 20 tracklets, it is learnt from all, and may not be kept.  All numbers
    are rounded as they are stored, so that versions of what is stored and what is used are the same.

    Args:
        sightings: N tracklets of one model.

    Returns:
        The scale, and how many people each mean in it is worth at least: 0 if it was learnt from all.

    Raises:
        InputError: Fewer than 20 tracklets.
    """
    centring = learnt_centring(sightings)
    numbers = sightings.camera_numbers
    worth = {
        name: min(
            centring.cameras[name].people,
            people_worth(sightings.taken(np.flatnonzero(numbers == place)), enough=LEAST_PEOPLE),
        )
        for place, name in enumerate(sightings.camera_names)
    }
    kept = [name for name, people in worth.items() if people >= LEAST_PEOPLE]
    rows = np.flatnonzero(np.isin(np.array(sightings.cameras), kept))
    if len(rows) < LEAST_TRACKLETS:
        return measured_scale(sightings, centring=_of_cameras(centring, list(worth), centring.mean)), 0.0
    mean = np.mean([centring.cameras[name].mean for name in kept], axis=0)
    scale = measured_scale(sightings.taken(rows), centring=_of_cameras(centring, kept, mean))
    return scale, min(worth[name] for name in kept)


def _of_cameras(centring: Centring, names: Sequence[str], mean: Floats) -> Centring:
    """Return a centring by the means of some cameras; the others count as unknown ones."""
    cameras = {name: replace(centring.cameras[name], mean=_rounded(centring.cameras[name].mean)) for name in names}
    mean = _rounded(mean)
    version = centring_version(centring.model_hash, mean, centring.weight, cameras)
    return replace(centring, mean=mean, cameras=cameras, version=version)


def keep_comparison(store: Store, comparison: Comparison) -> None:
    """Write what was learnt of a model, in place of what was there.

    Raises:
        InputError: It tells of fewer than ten people.
        StoreError: The store fails, or the user may not.
    """
    if not comparison.storable:
        raise InputError(f"what was learnt is not kept: {TOO_FEW_PEOPLE}. Wait until more people have passed.")
    write_document(store, _name(comparison.scale.centring.model_hash), _fields(comparison))


def kept_comparison(store: Store, model_hash: str) -> Comparison | None:
    """Return what was learnt of a model; None if nothing was.

    Raises:
        StoreError: It is damaged, or of a later format; the message says how to renew it.
    """
    again = f"Learn it again: reid-edge gallery calibrate {store.name}"
    try:
        fields = read_document(store, _name(model_hash))
        if fields is None:
            return None
        if fields["format"] != FORMAT:
            raise StoreError(
                f"the calibration in {store.name} has the format {fields['format']}; this release reads {FORMAT}."
            )
        comparison = _comparison(model_hash, fields)
    except StoreError as error:
        raise StoreError(f"{error} {again}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the calibration in {store.name} is not what was written: {error}. {again}") from error
    return comparison


def forget_comparison(store: Store, model_hash: str) -> bool:
    """Remove what was learnt of a model; return whether there was anything."""
    return remove_document(store, _name(model_hash))


def _name(model_hash: str) -> str:
    return f"comparison/{model_hash}"


def _fields(comparison: Comparison) -> dict[str, Any]:
    centring, strangers, made = comparison.scale.centring, comparison.scale.strangers, comparison.calibration
    return {
        "format": FORMAT,
        "made_us": comparison.made_us,
        "first_us": comparison.first_us,
        "tracklets": comparison.tracklets,
        "observations": comparison.observations,
        "people": comparison.people,
        "since_us": comparison.since_us,
        "version": comparison.scale.version,
        "centring": {
            "mean": _text(centring.mean),
            "weight": centring.weight,
            "cameras": {name: _camera_fields(camera) for name, camera in centring.cameras.items()},
        },
        "strangers": {
            "mean": _text(strangers.mean),
            "axes": _text(strangers.axes),
            "variances": _text(strangers.variances),
            "rest": strangers.rest,
            "tracklets": strangers.tracklets,
        },
        "calibration": None
        if made is None
        else {
            "impostors": _text(made.impostors),
            "genuine": _text(made.genuine),
            "impostor_tracklets": made.impostor_tracklets,
            "genuine_tracklets": made.genuine_tracklets,
            "genuine_from": made.genuine_from,
        },
        "known": None if comparison.known is None else dict(vars(comparison.known)),
    }


def _camera_fields(camera: CameraMean) -> dict[str, Any]:
    return {**vars(camera), "mean": _text(camera.mean)}


def _comparison(model_hash: str, fields: Mapping[str, Any]) -> Comparison:
    centring, strangers, made = fields["centring"], fields["strangers"], fields["calibration"]
    cameras = {
        name: CameraMean(**{**camera, "mean": _array(camera["mean"])}) for name, camera in centring["cameras"].items()
    }
    mean, weight = _array(centring["mean"]), float(centring["weight"])
    version = centring_version(model_hash, mean, weight, cameras)
    scale = Scale(
        centring=Centring(model_hash=model_hash, mean=mean, weight=weight, cameras=cameras, version=version),
        strangers=Strangers(
            mean=_array(strangers["mean"]),
            axes=_array(strangers["axes"]).reshape(-1, len(mean)),
            variances=_array(strangers["variances"]),
            rest=float(strangers["rest"]),
            tracklets=int(strangers["tracklets"]),
        ),
    )
    if scale.version != fields["version"]:
        raise ValueError("its numbers do not fit its version")
    return Comparison(
        scale=scale,
        calibration=None if made is None else _calibration(scale, made),
        made_us=int(fields["made_us"]),
        first_us=int(fields["first_us"]),
        tracklets=int(fields["tracklets"]),
        observations=int(fields["observations"]),
        known=_known(fields.get("known")),
        people=float(fields.get("people", 0)),
        since_us=int(fields.get("since_us", fields["first_us"])),  # earlier releases kept the first sight alone
    )


def _calibration(scale: Scale, fields: Mapping[str, Any]) -> Calibration:
    return Calibration(
        model_hash=scale.centring.model_hash,
        scale_version=scale.version,
        impostors=_array(fields["impostors"]),
        genuine=_array(fields["genuine"]),
        impostor_tracklets=int(fields["impostor_tracklets"]),
        genuine_tracklets=int(fields["genuine_tracklets"]),
        genuine_from=fields["genuine_from"],
    )


def _known(fields: Mapping[str, Any] | None) -> KnownPairs | None:
    """Return the labelled pairs of a document; documents of earlier releases have none."""
    if fields is None:
        return None
    counts = {name: int(fields[name]) for name in ("one", "one_above", "two", "two_above")}
    if not (0 <= counts["one_above"] <= counts["one"] and 0 <= counts["two_above"] <= counts["two"]):
        raise ValueError("more labelled pairs reach the limit than there are")
    return KnownPairs(limit=float(fields["limit"]), **counts)


def _text(array: Floats) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _array(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)


def _rounded(array: Floats) -> Floats:
    return array.astype(np.float32).astype(np.float64)
