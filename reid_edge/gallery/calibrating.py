"""Learn from a gallery how its features compare, and what a similarity means in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError, InputError, ReidEdgeError, StoreError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.comparison import (
    Comparison,
    forget_comparison,
    keep_comparison,
    kept_comparison,
    learnt_scale,
)
from reid_edge.gallery.entries import Record
from reid_edge.gallery.held_tracklets import ModelTracklets, read_model_tracklets
from reid_edge.gallery.labelled_pairs import LabelledPair, LabelledRows, rows_of
from reid_edge.gallery.people_decisions import keep_labels, labels_as_decisions
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import Decision
from reid_edge.identity.background import LEAST_TRACKLETS
from reid_edge.identity.calibration import Calibration, calibrated
from reid_edge.identity.centring import moved_cameras
from reid_edge.identity.constraints import CannotLink
from reid_edge.identity.known_pairs import KnownPairs, known_pairs
from reid_edge.identity.sightings import Sightings

Rows = npt.NDArray[np.int64]
#: Most pairs of a kind; of more, so many are drawn.
MOST_PAIRS = 20_000
_NO_LABELS = LabelledRows(np.empty((0, 2), np.int64), np.empty((0, 2), np.int64), 0)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a calibration was made from.

    Attributes:
        comparison: What was learnt.
        calibration: The calibration in it; None: no two people are known.
        seen_together: Number of pairs that one camera saw at the same time; of more than 20,000, so many are drawn.
        labelled: Labelled pairs, and how many were left out.
        moved: Cameras whose mean has changed since the calibration before, by how many times the limit.
        damaged: What was wrong with the calibration before; "" for nothing.
        decisions: What the labelled pairs say of people.
    """

    comparison: Comparison
    calibration: Calibration | None
    seen_together: int
    labelled: LabelledRows
    moved: dict[str, float]
    damaged: str = ""
    decisions: tuple[Decision, ...] = ()


def calibrate(
    store: Store,
    *,
    now_us: int,
    find: Callable[[str], Record],
    pairs: list[LabelledPair] | None = None,
    model_hash: str | None = None,
    since_us: int = 0,
    required: bool = True,
) -> Report:
    """Learn how the features of a model compare and what similarities mean; nothing is stored yet.

    Args:
        store: Which gallery.
        now_us: This moment.
        find: Returns the record of an id of the labelled pairs.
        pairs: Labelled pairs.
        model_hash: Which model; None: the only one of which there are tracklets.
        since_us: Leave out what was last seen before.
        required: Nothing is of use without a calibration, unless labelled pairs say something of people.

    Raises:
        UsageError: Several models, and none is named, or an id of the pairs could be several observations.
        InputError: Too few tracklets, or a calibration is required and no two are known to be two people.
        ContradictionError: Labelled pairs contradict one another, what a camera has seen, or an operator.
        StoreError: The store fails.
    """
    held = _of_model(
        store, read_model_tracklets(store, since_us=max(since_us, kept_since_us(store, now_us))), model_hash
    )
    sightings = held.sightings
    labelled = _NO_LABELS if pairs is None else rows_of(pairs, held, find)
    comparison = learnt(held, now_us=now_us)
    cannot_link = CannotLink(sightings)
    together = cannot_link.simultaneous_pairs(MOST_PAIRS)
    _check_labels(sightings, labelled.same, cannot_link)
    decisions = labels_as_decisions(store, held, labelled, at_us=now_us)
    before, damaged = _before(store, sightings.model_hash)
    two = np.unique(np.concatenate([together, labelled.different]), axis=0)
    calibration = None
    if len(two) or (required and not decisions):
        calibration = calibrated(
            sightings, _drawn(two), scale=comparison.scale, genuine=_drawn(labelled.same), parts=held.parts
        )
    return Report(
        comparison=replace(
            comparison, calibration=calibration, known=_known(sightings, labelled, before), since_us=since_us
        ),
        calibration=calibration,
        seen_together=len(together),
        labelled=labelled,
        moved=_moved(before, sightings),
        damaged=damaged,
        decisions=decisions,
    )


def keep(store: Store, report: Report, *, now_us: int) -> None:
    """Store a calibration, if there is one, and what its labelled pairs say of people; it is in the audit.

    Raises:
        InputError: The calibration would tell of fewer than ten people; what labelled pairs say is stored.
        PeopleChangedError: Others changed people at every attempt; the calibration is stored.
        StoreError: The store fails, or the user may not.
    """
    made, storable = report.calibration, report.comparison.storable
    detail = {
        "model_hash": report.comparison.scale.centring.model_hash,
        "version": made.scale_version if made is not None and storable else "",
        "tracklets": report.comparison.tracklets,
        "pairs_of_two": 0 if made is None else len(made.impostors),
        "pairs_of_one": 0 if made is None else len(made.genuine),
        "decisions": len(report.decisions),
    }
    audit.record(store, "calibrate", detail, at_us=now_us)
    if made is not None and storable:
        keep_comparison(store, report.comparison)
    if report.decisions:
        keep_labels(store, report.decisions)
    if made is not None and not storable:
        keep_comparison(store, report.comparison)  # says why not


def learnt(held: ModelTracklets, *, now_us: int) -> Comparison:
    """Learn how the features of a model compare, without what their similarities mean.

    Raises:
        InputError: Fewer than 20 tracklets.
    """
    sightings = held.sightings
    if len(sightings) < LEAST_TRACKLETS:
        raise InputError(
            f"expected at least {LEAST_TRACKLETS} tracklets to compare by, the gallery holds {len(sightings)} of the "
            f"model {sightings.model_hash[:8]}…. Wait until more people have passed."
        )
    scale, people = learnt_scale(sightings)
    return Comparison(
        scale=scale,
        calibration=None,
        made_us=now_us,
        first_us=int(sightings.first_s.min() * 1e6),
        tracklets=len(sightings),
        observations=held.observations,
        people=people,
    )


def _of_model(store: Store, held: dict[str, ModelTracklets], model_hash: str | None) -> ModelTracklets:
    chosen = [model for model in held if model_hash is None or model.startswith(model_hash)]
    if len(chosen) == 1:
        return held[chosen[0]]
    if not held:
        raise InputError(f"{store.name} holds no tracklets yet; calibrating needs at least {LEAST_TRACKLETS}.")
    models = ", ".join(f"{model} ({len(held[model].keys):,} tracklets)" for model in held)
    if not chosen:
        raise InputError(f"{store.name} holds no tracklets of the model {model_hash}; it holds {models}.")
    raise UsageError(f"{store.name} holds tracklets of several models: {models}. Name one: --model HASH.")


def _check_labels(sightings: Sightings, same: Rows, cannot_link: CannotLink) -> None:
    for one, other in same.tolist():
        if one != other and cannot_link.between([one], [other]) is not None:
            raise ContradictionError(
                f"the pairs say that {sightings.ids[one]} and {sightings.ids[other]} are one person, but one camera "
                "saw both at the same time. Take that pair out, or check the camera's clock."
            )


def _known(sightings: Sightings, labelled: LabelledRows, before: Comparison | None) -> KnownPairs | None:
    """Return what labelled pairs say of the limit of people; without labels, what they said the last time."""
    if not len(labelled.same) and not len(labelled.different):
        return None if before is None else before.known
    return known_pairs(sightings, labelled.same, labelled.different)


def _drawn(pairs: Rows) -> Rows:
    if len(pairs) <= MOST_PAIRS:
        return pairs
    chosen: Rows = pairs[np.sort(np.random.default_rng(0).choice(len(pairs), MOST_PAIRS, replace=False))]
    return chosen


def _before(store: Store, model_hash: str) -> tuple[Comparison | None, str]:
    try:
        return kept_comparison(store, model_hash), ""
    except StoreError as error:
        return None, str(error)


def _moved(before: Comparison | None, sightings: Sightings) -> dict[str, float]:
    """Return the cameras whose tracklets since the calibration before have another mean."""
    if before is None:
        return {}
    since = np.flatnonzero(sightings.first_s * 1e6 > before.made_us)
    return moved_cameras(before.scale.centring, sightings.taken(since)) if len(since) else {}


def comparison_for(store: Store, model_hash: str, *, now_us: int) -> Comparison | None:
    """Return how the features of a model compare: what is stored, or what is learnt now; None if too little is known.

    What is learnt now is stored if it tells of ten people or more and the user may do that; else what was stored
    without a calibration is removed.  It is learnt again after an erasure, when the gallery has become a quarter older,
    and once a day; a calibration stays until the next one.

    Raises:
        StoreError: The store fails, or what is stored is damaged.
    """
    known = kept_comparison(store, model_hash)
    if known is not None and (known.calibration is not None or _good(store, known, now_us)):
        return known
    held = read_model_tracklets(store, since_us=kept_since_us(store, now_us)).get(model_hash)
    enough = held is not None and len(held.keys) >= LEAST_TRACKLETS
    comparison = learnt(held, now_us=now_us) if held is not None and enough else None
    with contextlib.suppress(StoreError):  # a role that may only read
        if comparison is not None and comparison.storable:
            keep_comparison(store, comparison)
        elif known is not None:
            forget_comparison(store, model_hash)
    return comparison


def forget_uncalibrated(store: Store) -> str:
    """Remove what was learnt of models without a calibration: searches learn it again.

    Returns:
        What could not be removed, in words; "" for nothing.
    """
    return "; ".join(
        f"what was learnt of the features of the model {model_hash[:8]}… could not be removed ({error})"
        for model_hash, error in _tried(store, _forget_uncalibrated)
    )


def learn_after_erasure(store: Store, *, now_us: int) -> str:
    """Learn calibrations again without what was erased, and remove what was learnt without one.

    Returns:
        What could not be learnt again, in words; "" for nothing.
    """
    left = forget_uncalibrated(store)
    again = [
        f"the calibration of the model {model_hash[:8]}… was made before, and holds the means of cameras, perhaps "
        f"with those erased; make it again, with its labelled pairs, or remove it with --forget: reid-edge gallery "
        f"calibrate {store.name} --model {model_hash[:8]} ({f'{error}'.rstrip('.')})"
        for model_hash, error in _tried(store, lambda one, name: _learn_again(one, name, now_us))
    ]
    return "; ".join([left, *again] if left else again)


def _tried(store: Store, work: Callable[[Store, str], None]) -> Iterator[tuple[str, ReidEdgeError]]:
    """Do something for each model that has observations or had; yield the models of which it failed, and why."""
    for one in store.models():
        try:
            work(store, one.model_hash)
        except ReidEdgeError as error:
            yield one.model_hash, error


def _forget_uncalibrated(store: Store, model_hash: str) -> None:
    known, damaged = _before(store, model_hash)
    if damaged or (known is not None and known.calibration is None):
        forget_comparison(store, model_hash)


def _learn_again(store: Store, model_hash: str, now_us: int) -> None:
    known, _ = _before(store, model_hash)
    if known is None or known.calibration is None:
        return
    if known.calibration.genuine_from == "labels" or known.known is not None:
        raise InputError("it was made with labelled pairs, which are not stored")
    report = calibrate(store, now_us=now_us, find=_nobody, model_hash=model_hash, since_us=known.since_us)
    keep(store, report, now_us=now_us)


def _nobody(name: str) -> Record:
    raise AssertionError(f"{name} was asked for, though no pair is labelled")


def _good(store: Store, comparison: Comparison, now_us: int) -> bool:
    """Return whether what was learnt without a calibration may be used still: it is fresh, nothing was erased since.

    An erasure removes it; but not where it may not write, or where an older file is copied back.
    """
    if not comparison.storable or now_us >= _good_until(comparison):
        return False
    return all(one.made_us <= comparison.made_us for one in store.erasures())


def _good_until(comparison: Comparison) -> float:
    age_us = comparison.made_us - comparison.first_us
    return comparison.made_us + min(max(age_us / 4, 60e6), 24 * 3600e6)
