"""Galleries of people who pass three cameras, several of them at a time."""

from dataclasses import replace

import numpy as np

from reid_edge.features import l2_normalised
from reid_edge.gallery.entries import Record
from tests.gallery.stores import MODEL, NOON, SECOND, record
from tests.identity.scenes import make_scene

DIM = 64


def crowd(
    *, people=60, together=3, noise=0.8, shift=0.0, observations=1, start=NOON, first_track=1, seed=0, model=MODEL
):
    """Records of 3 × ``people`` tracklets, and the person of each.

    ``together`` people pass a camera at the same time.  With several observations the first ones have fewer crops.
    """
    scene = make_scene(people=people, cameras=3, noise=noise, shift=shift, seed=seed)
    generator = np.random.default_rng(seed + 1)
    rows = []
    for place, feature in enumerate(scene.sightings.features):
        at = start + place // together * 10 * SECOND
        camera, track = scene.sightings.cameras[place], first_track + place
        for each in range(observations):
            crops = 2 ** (each + 1)
            wobble = 0 if each == observations - 1 else 0.5 * generator.normal(size=DIM) / 8
            one = record(
                10 * track + each,
                l2_normalised((feature + wobble)[None])[0].astype(np.float32),
                camera=camera,
                track=track,
                at=at,
                lasts=(5 + each) * SECOND,
                model=model,
            )
            apart = (0.3 * (place % together), 0.25, 0.3 * (place % together) + 0.2, 0.75)
            rows.append(Record(replace(one.entry, crops=crops, box=apart), one.feature))
    return rows, scene.people


def filled(store, rows):
    """Put records into an empty store."""
    for model in {row.entry.model_hash for row in rows}:
        store.accept_model(model, DIM, now_us=NOON)
    store.add(rows)
    return store
