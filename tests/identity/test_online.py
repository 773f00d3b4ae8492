from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.errors import ContradictionError, MixedModelsError, NoSuchTrackletError
from reid_edge.features import l2_normalised
from reid_edge.identity.background import Background, measured_background
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.constraints import OperatorConstraints
from reid_edge.identity.online import OnlinePeople
from reid_edge.identity.people_table import Numbers
from reid_edge.identity.sightings import Sighting
from reid_edge.identity.transit import StatedTransits
from tests.identity.scenes import MODEL, agreement, make_scene


def rows_of(sightings):
    return [
        Sighting(
            id=sightings.ids[row],
            camera=sightings.cameras[row],
            model_hash=sightings.model_hash,
            first_s=float(sightings.first_s[row]),
            last_s=float(sightings.last_s[row]),
            feature=sightings.features[row],
        )
        for row in range(len(sightings))
    ]


def empty(sightings, **changes):
    centring = learnt_centring(sightings)
    background = measured_background(centring.applied(sightings))
    return OnlinePeople(sightings.model_hash, centring, background, **changes)


def two_views(scene):
    """The first and second tracklet of one person, as sightings."""
    rows = np.flatnonzero(scene.people == scene.people[0])[:2]
    all_rows = rows_of(scene.sightings)
    return all_rows[rows[0]], all_rows[rows[1]]


def test_people_who_differ_clearly_are_found_one_tracklet_at_a_time():
    scene = make_scene(people=40, cameras=4, shift=1.0)
    online = empty(scene.sightings)
    events = [event for row in rows_of(scene.sightings) for event in online.add(row)]
    found = np.array([online.person_of(name) for name in scene.sightings.ids])
    assert agreement(found, scene.people) == (0, 0) and len(online) == 40
    assert [event.kind for event in events].count("assigned") == 120


def test_it_goes_on_from_people_who_were_clustered():
    scene = make_scene(people=40, cameras=3, visits=2, shift=1.0)
    rows = rows_of(scene.sightings)
    past = scene.sightings.taken(range(120))
    online = OnlinePeople.continued(clustered(past), rows[:120])
    before = [online.person_of(name) for name in past.ids]
    assert agreement(np.array(before), scene.people[:120]) == (0, 0)
    for row in rows[120:]:
        [event] = online.add(row)
        assert event.kind == "assigned" and event.similarity > 3.25
    assert before == [online.person_of(name) for name in past.ids]
    with pytest.raises(NoSuchTrackletError, match="clustered"):
        OnlinePeople.continued(clustered(past), rows)


def test_no_constraint_is_ever_violated():
    generator = np.random.default_rng(3)
    scene = make_scene(people=8, cameras=3, visits=8, noise=1.0).sightings
    starts = generator.uniform(0, 400, len(scene))
    online = empty(scene, above=-3.0, transits=StatedTransits(shortest_s={("camera0", "camera1"): 40.0}))
    rows = [replace(row, first_s=start, last_s=start + 30) for row, start in zip(rows_of(scene), starts, strict=True)]
    for row in rows:
        online.add(row)
    together = 0
    for place, one in enumerate(rows):
        for other in rows[:place]:
            if online.person_of(one.id) != online.person_of(other.id):
                continue
            together += 1
            gap = max(one.first_s - other.last_s, other.first_s - one.last_s)
            assert one.camera != other.camera or gap > -0.5
            assert {one.camera, other.camera} != {"camera0", "camera1"} or gap >= 38
    assert together > 50


def test_the_same_tracklet_twice_is_not_two_members():
    scene = make_scene()
    online = empty(scene.sightings)
    first, second = two_views(scene)
    online.add(first)
    online.add(second)
    assert online.add(second) == () and online.add(replace(second, last_s=second.last_s + 5, crops=3)) == ()
    assert online.members(online.person_of(first.id)) == tuple(sorted((first.id, second.id)))


def test_a_person_of_one_tracklet_keeps_the_number_when_more_of_it_comes():
    scene = make_scene()
    online = empty(scene.sightings)
    for row, who in zip(rows_of(scene.sightings), scene.people, strict=True):
        if who != 0:
            online.add(row)
    lone = two_views(scene)[0]
    [event] = online.add(lone)
    assert event.kind in ("new", "unsure")
    for more in (
        lone,
        replace(lone, last_s=lone.last_s + 30, crops=3),
        replace(lone, last_s=lone.last_s + 60, crops=9),
    ):
        assert online.add(more) == () and online.person_of(lone.id) == event.person
    assert online.add(two_views(scene)[1])[0].person == event.person


def test_without_a_background_too_a_person_keeps_the_number():
    scene = make_scene(people=5)
    online = OnlinePeople(MODEL, learnt_centring(scene.sightings), None)
    first, second = two_views(scene)
    online.add(first)
    [event] = online.add(second)
    assert online.add(replace(second, crops=9)) == () and online.person_of(second.id) == event.person


def test_a_persons_only_tracklet_that_becomes_somebody_elses_is_a_merge_of_the_two():
    scene = make_scene()
    online = empty(scene.sightings)
    rows = rows_of(scene.sightings)
    lone, same = two_views(scene)
    stranger = next(row for row, who in zip(rows, scene.people, strict=True) if who == 5)
    [new] = online.add(replace(lone, feature=l2_normalised(-lone.feature[None])[0]))
    for row, who in zip(rows, scene.people, strict=True):
        if who != 0:
            online.add(row)
    joins = online.person_of(stranger.id)
    [event] = online.add(replace(lone, feature=stranger.feature, crops=9))
    assert (event.kind, event.person, event.other) == ("merged", new.person, joins)
    assert event.similarity >= online.limit and event.reason == "nearer than strangers are"
    assert online.person_of(lone.id) == online.person_of(stranger.id) == new.person
    assert same.id not in online.members(new.person)


def test_a_tracklet_that_turns_out_to_overlap_leaves_its_person():
    scene = make_scene(cameras=1, visits=2)
    online = empty(scene.sightings, above=3.25)
    for row in rows_of(scene.sightings):
        online.add(row)
    first, second = two_views(scene)
    assert online.person_of(first.id) == online.person_of(second.id)
    [event] = online.add(replace(second, first_s=first.first_s, crops=9))
    assert (event.kind, event.tracklet, event.reason) == ("split", second.id, "one camera saw both at the same time")
    assert online.person_of(first.id) != online.person_of(second.id) == event.person


def test_a_tracklet_whose_mean_becomes_another_persons_leaves():
    scene = make_scene()
    online = empty(scene.sightings)
    rows = rows_of(scene.sightings)
    for row in rows:
        online.add(row)
    first, second = two_views(scene)
    stranger = next(row for row, who in zip(rows, scene.people, strict=True) if who == 5)
    [event] = online.add(replace(second, feature=stranger.feature, crops=9))
    assert event.kind == "split" and event.other == online.person_of(first.id)


def test_two_people_whom_later_tracklets_bring_together_are_merged_with_the_reason():
    scene = make_scene(people=60)
    rows = rows_of(scene.sightings)
    one = [row for row, who in zip(rows, scene.people, strict=True) if who == 0]
    online = empty(scene.sightings, above=2.25)
    for row, who in zip(rows, scene.people, strict=True):
        if who != 0:
            online.add(row)
    side = l2_normalised(np.random.default_rng(8).normal(size=(1, 64)))[0]
    views = [
        replace(
            one[0],
            id=f"view{place}",
            camera=one[place % 3].camera,
            feature=l2_normalised((one[0].feature + angle * side)[None])[0].astype(np.float32),
            first_s=1e5 + place * 100,
            last_s=1e5 + place * 100 + 5,
        )
        for place, angle in enumerate((-0.8, 0.8, -0.3, 0.3, 0.0))
    ]
    for view in views[:2]:
        assert online.add(view)[0].kind in ("unsure", "new")
    events = [event for view in views[2:] for event in online.add(view)]
    [merged] = [event for event in events if event.kind == "merged"]
    assert merged.reason == "nearer than strangers are" and merged.similarity >= 2.25 and merged.person < merged.other
    assert len({online.person_of(view.id) for view in views}) == 1
    person = online._table.people[merged.person]
    assert person.cameras == Counter(view.camera for view in views)


def test_an_operator_joins_and_parts():
    scene = make_scene()
    online = empty(scene.sightings)
    for row in rows_of(scene.sightings):
        online.add(row)
    first, second = two_views(scene)
    stranger = scene.sightings.ids[int(np.flatnonzero(scene.people == 5)[0])]
    [event] = online.join(first.id, stranger)
    assert event.kind == "merged" and event.reason == "an operator says that they are the same"
    assert online.person_of(first.id) == online.person_of(stranger) and online.join(first.id, stranger) == ()
    events = online.part(first.id, stranger)
    assert {event.kind for event in events} == {"split"} and len(events) == 3  # the stranger's three tracklets leave
    assert online.person_of(first.id) == online.person_of(second.id) != online.person_of(stranger)
    with pytest.raises(ContradictionError, match="an operator says that they are not the same"):
        online.join(second.id, stranger)
    with pytest.raises(ContradictionError):
        online.part(first.id, first.id)


def test_what_an_operator_has_parted_is_never_joined_again():
    scene = make_scene()
    online = empty(scene.sightings)
    first, second = two_views(scene)
    online.add(first)
    online.add(second)
    online.part(first.id, second.id)
    online.add(replace(second, crops=5))
    assert online.person_of(first.id) != online.person_of(second.id)


def test_whom_an_operator_has_joined_no_new_crops_part():
    scene = make_scene()
    first, second = two_views(scene)
    stranger = next(row for row, who in zip(rows_of(scene.sightings), scene.people, strict=True) if who == 5)
    looks_other = replace(second, feature=stranger.feature, crops=9)
    said = OperatorConstraints(same=((first.id, second.id),))
    for operator, kinds in ((None, ["split"]), (said, [])):
        online = empty(scene.sightings, operator=operator)
        online.load([(first, 3), (second, 3)])
        assert [event.kind for event in online.add(looks_other)] == kinds
    seen_together = replace(second, camera=first.camera, first_s=first.first_s, last_s=first.last_s)
    online = empty(scene.sightings, operator=said)
    online.load([(first, 3), (replace(second, camera=first.camera), 3)])
    assert [event.kind for event in online.add(seen_together)] == ["split"]


def test_what_is_loaded_keeps_its_numbers_and_is_compared_as_if_it_had_been_added():
    scene = make_scene(people=40, cameras=3, shift=1.0)
    rows = rows_of(scene.sightings)
    numbers = Numbers(1000)
    online = empty(scene.sightings, numbers=numbers)
    online.load([(row, 500 + int(who)) for row, who in zip(rows[:-1], scene.people, strict=False)])
    [event] = online.add(rows[-1])
    assert (event.kind, event.person) == ("assigned", 500 + scene.people[-1])
    online.remove(rows[0].id)
    online.remove("nobody knows it")
    with pytest.raises(NoSuchTrackletError):
        online.person_of(rows[0].id)
    said = OperatorConstraints(not_same=tuple((rows[0].id, row.id) for row in rows[1:]))
    online = empty(scene.sightings, numbers=numbers, operator=said)
    online.load([(row, 500 + int(who)) for row, who in zip(rows[1:], scene.people[1:], strict=True)])
    assert [event.person for event in online.add(rows[0])] == [1000] and numbers.next == 1001


def test_without_a_background_everybody_is_a_person_of_its_own():
    scene = make_scene(people=5)
    online = OnlinePeople(MODEL, learnt_centring(scene.sightings), None)
    events = [event for row in rows_of(scene.sightings) for event in online.add(row)]
    assert [event.kind for event in events] == ["new"] + ["unsure"] * 14 and len(online) == 15


def test_people_who_are_forgotten_are_gone_with_their_tracklets():
    scene = make_scene(people=100, cameras=1)
    online = empty(scene.sightings)
    rows = rows_of(scene.sightings)
    for row in rows:
        online.add(row)
    assert len(online.forget(rows[60].first_s)) == 60 and len(online) == 40
    with pytest.raises(NoSuchTrackletError):
        online.person_of(rows[0].id)
    numbers = {online.person_of(row.id) for row in rows[60:]}
    [event] = online.add(rows[0])
    assert event.kind in ("new", "unsure") and event.person not in numbers and event.person == 100


def test_wrong_models_and_cameras_are_refused():
    scene = make_scene()
    online = empty(scene.sightings)
    row = rows_of(scene.sightings)[0]
    with pytest.raises(MixedModelsError):
        online.add(replace(row, model_hash="b" * 64))
    with pytest.raises(MixedModelsError):
        OnlinePeople("b" * 64, learnt_centring(scene.sightings), Background(median=0, spread=1, tracklets=50))
    online.add(row)
    with pytest.raises(ContradictionError, match="elsewhere"):
        online.add(replace(row, camera="elsewhere"))


def test_means_and_cameras_stay_those_of_the_members_after_many_changes():
    scene = make_scene(people=10, cameras=3, visits=4, noise=0.9)
    online = empty(scene.sightings, above=1.0)
    rows = rows_of(scene.sightings)
    for row in rows:
        online.add(row)
    for row in rows[::3]:
        online.add(replace(row, crops=2, feature=rows[0].feature))
    centring = learnt_centring(scene.sightings)
    for number in {online.person_of(row.id) for row in rows}:
        person = online._table.people[number]
        members = [centring.applied_to(one.feature, one.camera) for one in person.members.values()]
        assert np.allclose(online._table.means[person.slot], np.mean(members, axis=0), atol=1e-5)
        assert +person.cameras == Counter(one.camera for one in person.members.values())
