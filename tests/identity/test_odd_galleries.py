"""Galleries that are not as most are: one camera, one tracklet, a person who is everywhere, clocks that disagree."""

from dataclasses import replace

import numpy as np
import pytest

from reid_edge.identity.background import measured_background
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.constraints import CannotLink
from reid_edge.identity.online import OnlinePeople
from reid_edge.identity.sightings import Sighting, Sightings
from reid_edge.identity.transit import StatedTransits, doubtful_pairs
from tests.identity.scenes import MODEL, agreement, make_scene


def sightings_of(sightings, rows, **changes):
    """Some rows as single sightings, with changes."""
    for row in rows:
        fields = {
            "id": sightings.ids[row],
            "camera": sightings.cameras[row],
            "model_hash": MODEL,
            "first_s": float(sightings.first_s[row]),
            "last_s": float(sightings.last_s[row]),
            "feature": sightings.features[row],
        }
        yield Sighting(**{**fields, **changes})


def test_people_who_come_back_before_the_only_camera_are_found():
    scene = make_scene(people=30, cameras=1, visits=4, noise=0.2)
    people = clustered(scene.sightings)
    assert agreement(people.people, scene.people) == (0, 0)
    background = measured_background(people.centring.applied(scene.sightings)[scene.sightings.order()])
    online = OnlinePeople(MODEL, people.centring, background)
    for one in sightings_of(scene.sightings, range(len(scene.people))):
        online.add(one)
    found = np.array([online.person_of(name) for name in scene.sightings.ids])
    assert agreement(found, scene.people)[0] == 0


def test_one_tracklet_is_one_person_of_whom_nothing_is_known():
    scene = make_scene(people=1, cameras=1)
    people = clustered(scene.sightings)
    assert (people.people.tolist(), people.states, people.nearest.tolist()) == ([0], ("alone",), [-np.inf])
    (event,) = OnlinePeople(MODEL, learnt_centring(scene.sightings), None).add(next(sightings_of(scene.sightings, [0])))
    assert (event.kind, event.similarity) == ("new", None)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_somebody_who_has_a_large_share_of_all_tracklets_is_never_joined_with_others(share):
    scene = make_scene(people=60, cameras=3, visits=2, noise=0.4)
    generator = np.random.default_rng(1)
    staff = generator.random(len(scene.people)) < share
    own = scene.sightings.features[0] + 0.05 * generator.normal(size=(len(staff), 64))
    features = np.where(staff[:, None], own / np.linalg.norm(own, axis=1, keepdims=True), scene.sightings.features)
    sightings = Sightings(
        model_hash=MODEL,
        ids=scene.sightings.ids,
        cameras=scene.sightings.cameras,
        first_s=scene.sightings.first_s,
        last_s=scene.sightings.last_s,
        features=features.astype(np.float32),
    )
    people = np.where(staff | (scene.people == scene.people[0]), -1, scene.people)
    found = clustered(sightings)
    assert agreement(found.people, people)[0] == 0


def test_a_clock_that_is_wrong_makes_the_stated_times_doubtful():
    """People walk from one camera to the other in 100 s; the second camera's clock is 5 minutes slow."""
    scene = make_scene(people=40, cameras=2, noise=0.2)
    numbers = scene.sightings.camera_numbers
    first = scene.people * 1000.0 + 100 * numbers - 300 * numbers
    sightings = Sightings(
        model_hash=MODEL,
        ids=scene.sightings.ids,
        cameras=scene.sightings.cameras,
        first_s=first,
        last_s=first + 5,
        features=scene.sightings.features,
    )
    stated = StatedTransits(shortest_s={("camera0", "camera1"): 250.0})
    apart = clustered(sightings, cannot_link=CannotLink(sightings, transits=stated))
    assert agreement(apart.people, scene.people)[1] == 40  # the wrong clock keeps everybody apart
    assert agreement(clustered(sightings).people, scene.people) == (0, 0)
    assert {tuple(sorted(scene.people[pair])) for pair in apart.matches} == {(who, who) for who in range(40)}
    assert doubtful_pairs(stated, sightings, apart.matches) == (("camera0", "camera1"),)
    right = replace(sightings, first_s=first + 300 * numbers, last_s=first + 300 * numbers + 5)
    walked = StatedTransits(shortest_s={("camera0", "camera1"): 60.0})
    assert doubtful_pairs(walked, right, apart.matches) == ()
