"""Galleries of made-up people with known answers."""

import dataclasses

import numpy as np

from reid_edge.features import l2_normalised
from tests.gallery.stores import MODEL, SECOND, record
from tests.identity.scenes import agreement, make_scene

#: Time between the first sights of two tracklets of a scene.
STEP = 10 * SECOND


def scene_records(scene, *, at, model=MODEL, start=0):
    """A record of each tracklet of a scene, in the order of its rows; its track is the row's number."""
    sightings = scene.sightings
    return [
        record(
            start + row + 1,
            sightings.features[row],
            camera=sightings.cameras[row],
            track=row,
            at=at + row * STEP,
            lasts=5 * SECOND,
            model=model,
        )
        for row in range(len(sightings))
    ]


def filled(store, *, at, model=MODEL, **scene):
    """Fill a gallery with a scene; return the scene and its records."""
    made = make_scene(**{"people": 30, "shift": 1.0, **scene})
    rows = scene_records(made, at=at, model=model)
    store.accept_model(model, 64, now_us=at)
    store.add(rows)
    return made, rows


def turned(rows, camera, *, after, seed=8):
    """The same records; those of a camera whose track is ``after`` or later show it turned."""
    offset = 0.6 * l2_normalised(np.random.default_rng(seed).normal(size=(1, 64)))
    return [
        dataclasses.replace(row, feature=l2_normalised(row.feature[None] + offset)[0].astype(np.float32))
        if row.entry.camera == camera and row.entry.track >= after
        else row
        for row in rows
    ]


def errors(store, scene):
    """Numbers of pairs that are joined and should not be, and that should be and are not."""
    people = {one.track: one.person for one in store.assignments()}
    return agreement(np.array([people[row] for row in range(len(scene.people))]), scene.people)


def later(row, *, by, seq, **changes):
    """Another observation of the same tracklet."""
    entry = dataclasses.replace(row.entry, seq=seq, last_us=row.entry.last_us + by, **changes)
    return dataclasses.replace(row, entry=entry)
