import numpy as np
import pytest

from reid_edge.gallery.population import constraints_of
from reid_edge.gallery.renewal import renewed
from reid_edge.gallery.store.people import Assignment, Decision
from tests.gallery.stores import MODEL, NOON, SECOND

OLD = 100
LOOKS = {"a": np.array([1.0, 0.1], np.float32), "b": np.array([0.1, 1.0], np.float32)}


def assignment(track, person, last_s):
    return Assignment(
        camera="door", incarnation="e1", track=track, person=person, model_hash=MODEL, seq=track, first_us=NOON,
        last_us=NOON + last_s * SECOND, how="assigned", similarity=None, reason="", centring="", calibration="",
        at_us=NOON,
    )  # fmt: skip


def decision(kind, first, second):
    return Decision(kind=kind, first=("door", "e1", first), second=("door", "e1", second), at_us=NOON, by="ann")


def renewed_pairs(decisions, rows, looks=""):
    features = {f"door/e1/{track}": LOOKS[look] for track, look in enumerate(looks)}
    found = renewed(decisions, rows, features, aging_us=NOON + OLD * SECOND)
    assert all((one.at_us, one.by) == (NOON, "ann") for one in found)
    constraints_of([*decisions, *found])
    return sorted((one.kind, *sorted((one.first[2], one.second[2]))) for one in found)


def test_who_is_kept_apart_stays_so_by_the_last_tracklet_of_each():
    rows = [assignment(0, 1, 10), assignment(1, 2, 20), assignment(2, 1, 30), assignment(3, 2, 40)]
    apart = decision("not same", 0, 1)
    assert renewed_pairs([apart], rows) == [("not same", 2, 3)]
    assert renewed_pairs([apart, decision("not same", 3, 2)], rows) == []
    assert renewed_pairs([apart], rows[1:]) == []


def test_who_was_merged_stays_so_by_the_newer_tracklet_of_each_look():
    rows = [assignment(track, 1, last_s) for track, last_s in enumerate((10, 20, 110, 120, 130))]
    assert renewed_pairs([decision("same", 0, 1)], rows, "abaab") in ([("same", 2, 4)], [("same", 3, 4)])
    assert renewed_pairs([decision("same", 0, 1)], rows[:2], "ab") == []


def test_a_merge_of_young_tracklets_or_of_one_look_left_needs_nothing_more():
    rows = [assignment(track, 1, last_s) for track, last_s in enumerate((10, 20, 110, 120))]
    assert renewed_pairs([decision("same", 2, 3)], rows, "abab") == []
    assert renewed_pairs([decision("same", 0, 1)], rows[:3], "aba") == []
    assert renewed_pairs([decision("same", 0, 1)], rows) == []


def test_labelled_pairs_whom_nobody_has_joined_yet_are_left_alone():
    rows = [assignment(0, 1, 10), assignment(1, 2, 20), assignment(2, 1, 110), assignment(3, 2, 120)]
    assert renewed_pairs([decision("same", 0, 1)], rows, "abab") == []


@pytest.mark.parametrize("also", [[], [("not same", 6, 7)]])
def test_what_would_contradict_other_decisions_is_left_out(also):
    rows = [assignment(0, 1, 10), assignment(1, 2, 20), assignment(2, 1, 30), assignment(3, 2, 40)]
    rows += [assignment(4, 3, 10), assignment(5, 4, 20), assignment(6, 3, 30), assignment(7, 4, 40)] if also else []
    said = [decision("not same", 0, 1), decision("same", 2, 3)]
    assert renewed_pairs([*said, *([decision("not same", 4, 5)] if also else [])], rows) == also
