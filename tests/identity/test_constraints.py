import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.errors import ContradictionError
from reid_edge.identity import constraints
from reid_edge.identity.constraints import CannotLink, OperatorConstraints, joined_groups
from reid_edge.identity.sightings import Sighting
from reid_edge.identity.spans import Spans
from reid_edge.identity.transit import StatedTransits
from tests.identity.scenes import make_scene, simple, unit


def three(cameras="ddd", times=((0, 10), (5, 15), (20, 30)), boxes=()):
    return simple(unit(1, 0), unit(1, 0), unit(1, 0), cameras=cameras, times=list(times), boxes=boxes)


def box(second, left):
    return np.array([[second, left, 0.0, left + 0.2, 0.5]])


def test_two_tracklets_that_one_camera_saw_at_the_same_time_are_two_people():
    cannot = CannotLink(three())
    assert cannot.between([0], [1]) == "one camera saw both at the same time"
    assert cannot.between([0], [2]) is None and cannot.between([1], [2]) is None
    assert cannot.between([0, 2], [1]) is not None
    assert cannot.simultaneous_pairs().tolist() == [[0, 1]]


def test_two_cameras_may_see_one_person_at_the_same_time():
    cannot = CannotLink(three(cameras="dhd"))
    assert cannot.between([0], [1]) is None
    assert len(cannot.simultaneous_pairs()) == 0


def test_a_track_that_is_handed_over_is_no_second_person():
    assert CannotLink(three(times=((0, 10), (9.8, 15), (20, 30)))).between([0], [1]) is None


def test_one_person_who_is_detected_twice_is_no_second_person():
    twice = three(boxes=(box(7, 0.10), box(7.2, 0.12), np.empty((0, 5))))
    assert CannotLink(twice).between([0], [1]) is None
    assert len(CannotLink(twice).simultaneous_pairs()) == 0
    apart = three(boxes=(box(7, 0.10), box(7.2, 0.50), np.empty((0, 5))))
    assert CannotLink(apart).between([0], [1]) is not None
    other_moment = three(boxes=(box(6, 0.10), box(9, 0.10), np.empty((0, 5))))
    assert CannotLink(other_moment).between([0], [1]) is not None


def test_simultaneous_pairs_are_all_those_between_which_nothing_can_link():
    generator = np.random.default_rng(4)
    scene = make_scene(people=40, cameras=2).sightings
    first = generator.uniform(0, 40, len(scene))
    crowded = simple(
        *scene.features[:10],
        cameras="dhdhddhhdd",
        times=[(start, start + length) for start, length in zip(first, generator.uniform(0, 30, 10), strict=False)],
    )
    cannot = CannotLink(crowded)
    wanted = [[i, j] for i in range(10) for j in range(i + 1, 10) if cannot.between([i], [j])]
    assert cannot.simultaneous_pairs().tolist() == wanted and len(wanted) > 3


def test_of_very_many_simultaneous_pairs_some_are_drawn_and_looked_at():
    scene = make_scene(people=300, cameras=2).sightings
    crowded = replace(scene, first_s=np.arange(600) / 1e3, last_s=np.full(600, 60.0))
    cannot = CannotLink(crowded)
    pairs = cannot.simultaneous_pairs(500)
    assert len(pairs) == len(np.unique(pairs, axis=0)) == 500 and (pairs[:, 0] < pairs[:, 1]).all()
    assert all(cannot.between([one], [other]) for one, other in pairs.tolist())
    assert len({row for pair in pairs.tolist() for row in pair}) > 400  # of everybody, not of a few
    assert cannot.simultaneous_pairs(10**6).tolist() == cannot.simultaneous_pairs().tolist()


def days_long(left):
    """A box every 30 s for three days."""
    times = np.arange(8640) * 30.0
    return np.stack([times, *np.broadcast_to([[left], [0.0], [left + 0.2], [0.5]], (4, 8640))], axis=1)


def test_tracklets_of_days_are_compared_without_much_memory():
    times = ((0, 260_000), (0, 260_000), (0, 1))
    tracemalloc.start()
    apart = CannotLink(three(times=times, boxes=(days_long(0.1), days_long(0.5)[::-1], np.empty((0, 5)))))
    assert apart.between([0], [1]) is not None
    twice = CannotLink(three(times=times, boxes=(days_long(0.1), days_long(0.12), np.empty((0, 5)))))
    assert twice.between([0], [1]) is None
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_many_boxes_of_one_moment_are_compared_in_pieces(monkeypatch):
    monkeypatch.setattr(constraints, "PAIRS_AT_A_TIME", 7)
    generator = np.random.default_rng(2)
    for _ in range(30):
        boxes = []
        for count in generator.integers(1, 9, 2):
            corner, size = generator.uniform(0, 0.8, (count, 2)), generator.uniform(0.1, 0.2, (count, 2))
            boxes.append(np.column_stack([generator.integers(0, 3, count) * 0.4, corner, corner + size]))
        scene = three(boxes=(*boxes, np.empty((0, 5))))
        assert (CannotLink(scene).between([0], [1]) is None) == covered(*boxes)


def covered(first, second):
    """Whether a box of each covers the other, of all pairs within half a second."""
    for (one_s, *one), (other_s, *other) in itertools.product(first.tolist(), second.tolist()):
        width, height = (min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1))
        smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
        if abs(one_s - other_s) <= 0.5 and max(width, 0) * max(height, 0) >= 0.6 * smaller:
            return True
    return False


def test_large_sets_are_compared_in_pieces(monkeypatch):
    monkeypatch.setattr(constraints, "PAIRS_AT_A_TIME", 4)
    scene = make_scene(people=12, cameras=2).sightings
    times = np.arange(24) * 10.0
    times[17] = times[3]  # one pair alone is of one time, and of one camera
    first_s = np.where(np.arange(24) == 17, times[3], times)
    cannot = CannotLink(replace(scene, cameras=("d",) * 24, first_s=first_s, last_s=first_s + 5))
    assert cannot.between(list(range(12)), list(range(12, 24))) is not None
    assert cannot.between(list(range(12)), [*range(12, 17), *range(18, 24)]) is None


def test_of_a_person_of_many_tracklets_those_near_in_time_alone_are_looked_at(monkeypatch):
    transits = StatedTransits(shortest_s={("camera0", "camera1"): 30.0})
    scene = make_scene(people=400, cameras=2).sightings
    rows = [
        Sighting(
            id=name, camera=camera, model_hash=scene.model_hash, first_s=first, last_s=last, feature=scene.features[0]
        )
        for name, camera, first, last in zip(scene.ids, scene.cameras, scene.first_s, scene.last_s, strict=True)
    ]
    spans = Spans()
    for row in rows:
        spans.put(row)
    members = {row.id: row for row in rows}
    looked_at = []
    usual = constraints.seen_together
    monkeypatch.setattr(constraints, "seen_together", lambda *pair: looked_at.append(pair) or usual(*pair))

    def why(camera, first_s, last_s, apart=()):
        new = replace(rows[0], id="new", camera=camera, first_s=first_s, last_s=last_s)
        return constraints.forbidden(members, spans, [new], apart={"new": apart}, transits=transits)

    assert why("camera0", 2001, 2004) == "one camera saw both at the same time"
    assert why("camera0", 2005.1, 2009.9) is None
    assert why("camera1", 2001, 2004) == "nobody gets from one camera to the other in that time"
    assert why("camera1", 8100, 8101) is None and why("camera2", 0, 9000) is None
    assert why("camera2", 0, 1, apart=("elsewhere", rows[7].id)) == "an operator says that they are not the same"
    assert len(looked_at) <= 6
    for row in rows:
        spans.drop(row)
    assert not spans.cameras and why("camera0", 2001, 2004) is None


def test_nobody_is_faster_than_the_shortest_time_stated():
    transits = StatedTransits(shortest_s={("d", "h"): 10.0}, tolerance_s=2.0)
    scene = three(cameras="dhh", times=((0, 10), (17, 25), (19, 30)))
    cannot = CannotLink(scene, transits=transits)
    assert cannot.between([0], [1]) == "nobody gets from one camera to the other in that time"
    assert cannot.between([0], [2]) is None  # 9 s of 10, within the tolerance of the clocks
    assert CannotLink(scene).between([0], [1]) is None


def test_an_operator_keeps_two_tracklets_apart_and_joins_others():
    operator = OperatorConstraints(same=(("a", "c"),), not_same=(("b", "c"), ("c", "elsewhere")))
    cannot = CannotLink(three(cameras="dhd"), operator=operator)
    assert cannot.between([0, 1], [2]) == "an operator says that they are not the same"
    assert cannot.joined_rows() == [(0, 2)]


def test_contradicting_constraints_are_refused_through_others_too():
    with pytest.raises(ContradictionError, match=r"a and c are said to be two people.* a = b, b = c"):
        OperatorConstraints(same=(("a", "b"), ("b", "c"), ("x", "y")), not_same=(("a", "c"),))
    with pytest.raises(ContradictionError, match="a and a"):
        OperatorConstraints(not_same=(("a", "a"),))


def test_joining_two_who_were_seen_together_is_refused_with_the_reason():
    with pytest.raises(ContradictionError, match="a and b are said to be one person, but one camera saw both"):
        CannotLink(three(), operator=OperatorConstraints(same=(("a", "b"),)))


def test_joining_two_groups_that_hold_a_contradiction_is_refused():
    times = ((0, 10), (20, 30), (5, 15))
    with pytest.raises(ContradictionError, match="a and c are said to be one person"):
        CannotLink(three(times=times), operator=OperatorConstraints(same=(("a", "b"), ("b", "c"))))


def test_groups_are_named_by_their_first_member():
    assert joined_groups([("c", "b"), ("d", "c"), ("b", "a"), ("x", "y")]) == dict.fromkeys("abcd", "a") | {
        "x": "x",
        "y": "x",
    }
