import numpy as np
import pytest

from reid_edge.errors import MixedModelsError
from reid_edge.features import l2_normalised
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.constraints import CannotLink, OperatorConstraints
from reid_edge.identity.sightings import Sightings
from reid_edge.identity.sureness import SAME_CAMERA
from reid_edge.identity.transit import StatedTransits
from tests.identity.scenes import MODEL, agreement, make_scene


def random_sightings(seed, count=80):
    """Tracklets of nobody in particular, many at the same time, so that constraints bite."""
    generator = np.random.default_rng(seed)
    first = generator.uniform(0, 300, count)
    centres = generator.normal(size=(8, 32))
    features = centres[generator.integers(8, size=count)] + generator.normal(size=(count, 32))
    return Sightings(
        model_hash=MODEL,
        ids=tuple(f"t{number:03d}" for number in generator.permutation(count)),
        cameras=tuple(generator.choice(["a", "b", "c"], count)),
        first_s=first,
        last_s=first + generator.uniform(0, 40, count),
        features=l2_normalised(features).astype(np.float32),
    )


def test_people_who_differ_clearly_are_found_without_an_error():
    scene = make_scene(people=40, cameras=4, shift=1.0)
    people = clustered(scene.sightings)
    assert agreement(people.people, scene.people) == (0, 0)
    assert set(people.states) == {"assigned"} and (people.agreement > 2.25).all()


def test_numbers_of_people_follow_the_ids_and_not_the_order():
    sightings = make_scene(people=30, noise=0.8).sightings
    first = clustered(sightings, above=1.0)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(sightings))
        again = clustered(sightings.taken(order), above=1.0)
        assert np.array_equal(again.people, first.people[order])
        assert again.states == tuple(first.states[row] for row in order)


@pytest.mark.parametrize("seed", range(5))
def test_no_constraint_is_ever_violated(seed):
    sightings = random_sightings(seed)
    transits = StatedTransits(shortest_s={("a", "b"): 30.0, ("b", "c"): 10.0})
    apart = tuple((sightings.ids[row], sightings.ids[row + 1]) for row in range(0, 40, 2))
    free = clustered(sightings, above=-2.0)
    cannot = CannotLink(sightings, transits=transits, operator=OperatorConstraints(not_same=apart))
    people = clustered(sightings, cannot_link=cannot, above=-2.0).people
    joined = [(i, j) for i in range(80) for j in range(i + 1, 80) if people[i] == people[j]]
    assert joined and all(cannot.between([i], [j]) is None for i, j in joined)
    violated = [
        (i, j) for i in range(80) for j in range(i) if free.people[i] == free.people[j] and cannot.between([i], [j])
    ]
    assert violated  # the constraints have changed something


def test_an_operator_joins_whom_the_features_do_not():
    scene = make_scene(people=30)
    ids, people = scene.sightings.ids, scene.people
    different = (ids[0], ids[int(np.flatnonzero(people != people[0])[-1])])
    cannot = CannotLink(scene.sightings, operator=OperatorConstraints(same=(different,)))
    found = dict(zip(ids, clustered(scene.sightings, cannot_link=cannot).people, strict=True))
    assert found[different[0]] == found[different[1]]


def test_merges_are_those_of_average_linkage_over_all_pairs():
    sightings = random_sightings(9, count=30)
    found = clustered(sightings, above=1.0)
    features = found.centring.applied(sightings)
    cosines = features @ features.T
    ranked = np.sort(cosines - 10 * np.eye(30), axis=1)[:, ::-1]
    background = found.background
    highest = background.reached_by(8 / 30) + 1.5 * background.spread
    levels = np.clip(ranked[:, 4:12].mean(axis=1), background.median, highest)
    numbers = sightings.camera_numbers
    relative = (cosines - (levels[:, None] + levels) / 2) / background.spread
    relative -= SAME_CAMERA * (numbers[:, None] == numbers)
    cannot, groups = CannotLink(sightings), [[row] for row in range(30)]
    while True:  # every pair of groups, the nearest that may be merged first
        pairs = [
            (relative[np.ix_(one, other)].mean(), i, j)
            for i, one in enumerate(groups)
            for j, other in enumerate(groups[:i])
            if not cannot.between(one, other)
        ]
        best, i, j = max(pairs)
        if best < 1.0:
            break
        groups[j] += groups.pop(i)
    slow = np.zeros(30, int)
    for number, members in enumerate(groups):
        slow[members] = number
    assert agreement(found.people, slow) == (0, 0)
    assert 1 < len(groups) < 30


def test_somebody_whom_nobody_resembles_is_alone_and_look_alikes_are_unsure():
    scene = make_scene(people=40, noise=0.3)
    wider = np.pad(scene.sightings.features, ((0, 0), (0, 1)))
    stranger = np.eye(65, dtype=np.float32)[64:]
    both = Sightings(
        model_hash=MODEL,
        ids=(*scene.sightings.ids, "x", "y"),
        cameras=(*scene.sightings.cameras, "camera0", "camera1"),
        first_s=np.append(scene.sightings.first_s, [1e6, 2e6]),
        last_s=np.append(scene.sightings.last_s, [1e6, 2e6]),
        features=np.concatenate([wider, stranger, l2_normalised(wider[:1] - 0.9 * wider[1:2])]),
    )
    people = clustered(both, above=5.0)
    assert people.states[-2] == "alone" and people.people.tolist().count(people.people[-2]) == 1
    assert people.states[-1] == "unsure"


def test_of_one_person_alone_little_is_known_and_an_operator_can_say_the_rest():
    # no stranger tells what a stranger's similarity is: groups may be several, but never with another person in them
    scene = make_scene(people=1, cameras=3, visits=20, noise=0.1)
    assert clustered(scene.sightings).people.max() < 60
    operator = OperatorConstraints(same=tuple(zip(scene.sightings.ids, scene.sightings.ids[1:], strict=False)))
    told = clustered(scene.sightings, cannot_link=CannotLink(scene.sightings, operator=operator))
    assert set(told.people) == {0} and set(told.states) == {"assigned"}


@pytest.mark.parametrize("count", [1, 2, 19])
def test_too_few_tracklets_are_left_to_the_operator(count):
    sightings = make_scene(people=count, cameras=1).sightings
    people = clustered(sightings)
    assert len(set(people.people)) == count and people.background is None
    assert set(people.states) == ({"alone"} if count == 1 else {"unsure"})


def test_the_same_feature_of_many_tracklets_is_one_person():
    scene = make_scene(people=30)
    features = np.repeat(scene.sightings.features[:30], 3, axis=0)
    copies = Sightings(
        model_hash=MODEL,
        ids=scene.sightings.ids,
        cameras=tuple(["camera0", "camera1", "camera2"] * 30),
        first_s=scene.sightings.first_s,
        last_s=scene.sightings.last_s,
        features=features,
    )
    assert agreement(clustered(copies).people, np.repeat(np.arange(30), 3)) == (0, 0)


def test_a_centring_of_another_model_is_refused():
    sightings = make_scene().sightings
    other = Sightings(
        model_hash="b" * 64,
        ids=sightings.ids,
        cameras=sightings.cameras,
        first_s=sightings.first_s,
        last_s=sightings.last_s,
        features=sightings.features,
    )
    with pytest.raises(MixedModelsError):
        clustered(sightings, centring=learnt_centring(other))
