import numpy as np
import pytest

from reid_edge.errors import ContradictionError
from reid_edge.identity.constraints import CannotLink, OperatorConstraints, joined_groups
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
