"""What every store must do with people, on real engines."""

import contextlib
import dataclasses

import pytest

from reid_edge.errors import PeopleChangedError
from reid_edge.gallery.backup import back_up
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.restore import restore
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.erasures import new_erasure
from reid_edge.gallery.store.people import Assignment, Decision, PeopleChange, PeopleState, PersonEvent
from reid_edge.gallery.store.sqlite_beside import journal_text
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, record


def assignment(track, person, **changes):
    usual = {
        "camera": "door",
        "incarnation": "e1",
        "track": track,
        "person": person,
        "model_hash": MODEL,
        "seq": track,
        "first_us": NOON + track,
        "last_us": NOON + 1_000_000,
        "how": "assigned",
        "similarity": 4.25,
        "reason": "nearer than strangers are",
        "centring": "c1",
        "calibration": "",
        "at_us": NOON + HOUR,
    }
    return Assignment(**{**usual, **changes})


def decision(first, second, kind="not same", at_us=NOON):
    return Decision(kind=kind, first=("door", "e1", first), second=("door", "e1", second), at_us=at_us, by="ann")


def event(track, person, kind="new", **changes):
    usual = {"at_us": NOON, "model_hash": MODEL, "tracklet": ("door", "e1", track), "reason": "nobody is near"}
    return PersonEvent(kind=kind, person=person, **{**usual, **changes})


@pytest.fixture
def gallery(store):
    """Six tracklets, the first of which has two observations."""
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.add([record(1), *(record(seq, track=seq) for seq in range(2, 7)), record(7, track=1, lasts=HOUR)])
    return store


def test_a_gallery_has_no_people_at_first(gallery):
    assert gallery.people_state() == PeopleState(0, 1)
    assert gallery.assignments() == gallery.assignments(1) == gallery.decisions() == []
    assert gallery.person_events(limit=10) == []


def test_what_is_changed_comes_back_whole_and_is_replaced_by_later_changes(gallery):
    rows = [
        assignment(1, 2),
        assignment(2, 1, similarity=None, how="new"),
        assignment(3, 1, how="unsure", similarity=-2.5),
    ]
    events = [event(2, 1), event(1, 2, "merged", other=7, similarity=3.5)]
    change = PeopleChange(assignments=rows, decisions=[decision(2, 1)], events=events, next_person=3)
    assert gallery.change_people(change, revision=0) == gallery.people_state() == PeopleState(1, 3)
    assert gallery.assignments() == [rows[1], rows[2], rows[0]]
    assert gallery.assignments(1) == rows[1:] and gallery.assignments(9) == []
    assert gallery.decisions() == [decision(1, 2)]
    first, second = gallery.person_events(limit=10)
    assert [dataclasses.replace(one, number=0) for one in (first, second)] == events and first.number < second.number
    moved = dataclasses.replace(rows[1], person=2, similarity=9.5)
    change = PeopleChange(assignments=[moved], decisions=[decision(1, 2, "same", at_us=NOON + 1)], next_person=2)
    assert gallery.change_people(change, revision=1) == PeopleState(2, 3)  # no number is given twice
    assert gallery.assignments(2) == [rows[0], moved]
    assert gallery.decisions() == [decision(1, 2, "same", at_us=NOON + 1)]


def test_a_decision_is_withdrawn_or_replaced(gallery):
    gallery.change_people(PeopleChange(decisions=[decision(1, 2), decision(3, 4)]), revision=0)
    change = PeopleChange(decisions=[decision(5, 6)], withdrawn=[decision(2, 1, "same", at_us=9)])
    gallery.change_people(change, revision=1)
    assert gallery.decisions() == [decision(3, 4), decision(5, 6)]
    swapped = PeopleChange(decisions=[decision(3, 4, "same")], withdrawn=[decision(3, 4)])
    gallery.change_people(swapped, revision=2)
    assert gallery.decisions() == [decision(3, 4, "same"), decision(5, 6)]


def test_a_change_that_is_based_on_an_earlier_state_is_refused_whole(gallery):
    gallery.change_people(PeopleChange(assignments=[assignment(1, 1)], next_person=2), revision=0)
    late = PeopleChange(assignments=[assignment(1, 5), assignment(2, 5)], events=[event(1, 5)], next_person=6)
    with pytest.raises(PeopleChangedError, match="nothing was stored"):
        gallery.change_people(late, revision=0)
    assert gallery.people_state() == PeopleState(1, 2) and gallery.assignments() == [assignment(1, 1)]
    assert gallery.person_events(limit=10) == []


def test_a_change_that_fails_in_the_middle_leaves_nothing(gallery):
    broken = PeopleChange(assignments=[assignment(1, 1)], events=[event(1, object())], next_person=2)
    with pytest.raises(Exception):  # noqa: B017 - whatever the engine says of such a value
        gallery.change_people(broken, revision=0)
    assert gallery.people_state() == PeopleState() and gallery.assignments() == []


def test_nothing_is_kept_of_tracklets_that_are_not_held(gallery):
    change = PeopleChange(
        assignments=[assignment(1, 1), assignment(99, 1)],
        decisions=[decision(1, 99), decision(99, 1, at_us=NOON + 5)],
        events=[event(99, 1), event(1, 1)],
        next_person=2,
    )
    gallery.change_people(change, revision=0)
    assert gallery.assignments() == [assignment(1, 1)] and gallery.decisions() == []
    assert [one.tracklet[2] for one in gallery.person_events(limit=10)] == [1]


@pytest.mark.parametrize("how", ["erased", "erased elsewhere", "expired"])
def test_people_go_with_their_tracklets_however_these_go(gallery, how):
    rows = [assignment(track, 1 if track < 5 else 2) for track in range(1, 7)]
    events = [event(track, 1) for track in range(1, 7)]
    change = PeopleChange(
        assignments=rows, decisions=[decision(1, 2), decision(3, 2), decision(2, 4)], events=events, next_person=3
    )
    gallery.change_people(change, revision=0)
    for track in (1, 2, 5, 6):
        selection = Selection(cameras=("door",), incarnation="e1", track=track)
        if how == "erased":
            gallery.erase(selection, now_us=NOON)
    left = [3, 4]
    if how == "erased elsewhere":
        gallery.erase(Selection(cameras=("door",), incarnation="e1", track=2), now_us=NOON)
        rule = gallery.erasures()[0]
        only = dataclasses.replace(rule, id="ab" * 16, selection=dataclasses.replace(rule.selection, track=6))
        gallery.apply_erasures([only])
        left = [1, 3, 4, 5]
    if how == "expired":
        gallery.expire(NOON + HOUR)  # the second observation of the first tracklet stays
        left = [1]
    assert [one.track for one in gallery.assignments()] == left
    assert [one.tracklet[2] for one in gallery.person_events(limit=10)] == left
    assert gallery.decisions() == []


def cut(gallery, *, now_us=NOON + 9 * HOUR):
    """Erase the second observation of the first tracklet alone, and whole tracklets that were seen so late."""
    gallery.erase(Selection(cameras=("door",), since_us=NOON + HOUR), now_us=now_us)


@pytest.mark.parametrize("how", ["erased", "erased elsewhere"])
def test_nothing_is_known_by_a_part_of_a_tracklet_that_was_erased(gallery, how):
    gone = assignment(1, 1, seq=7, last_us=NOON + HOUR)
    change = PeopleChange(
        assignments=[gone, assignment(2, 1)], decisions=[decision(1, 2)], events=[event(1, 1), event(2, 1)],
        next_person=2,
    )  # fmt: skip
    gallery.change_people(change, revision=0)
    if how == "erased":
        cut(gallery)
    else:
        rule = new_erasure(Selection(cameras=("door",), since_us=NOON + HOUR), now_us=NOON + 9 * HOUR)
        gallery.apply_erasures([rule])
    assert gallery.span(Selection()).observations == 6 and gallery.find("door", "e1", 1)
    assert gallery.assignments() == [assignment(2, 1)]
    assert [one.tracklet[2] for one in gallery.person_events(limit=9)] == [2]
    assert gallery.decisions() == [decision(1, 2)]  # what an operator has said of the tracklet stays
    with pytest.raises(PeopleChangedError):  # who knew the erased part has to look again
        gallery.change_people(PeopleChange(assignments=[gone], next_person=2), revision=1)


def test_what_is_known_by_the_part_of_a_tracklet_that_is_left_stays(gallery):
    change = PeopleChange(assignments=[assignment(1, 1)], events=[event(1, 1)], next_person=2)
    gallery.change_people(change, revision=0)
    cut(gallery)
    assert gallery.assignments() == [assignment(1, 1)] and len(gallery.person_events(limit=9)) == 1


def test_an_expiry_of_a_tracklets_first_part_is_no_change_of_people(gallery):
    gone_on = assignment(1, 1, seq=7, last_us=NOON + HOUR)
    gallery.change_people(PeopleChange(assignments=[gone_on], next_person=2), revision=0)
    gallery.expire(NOON + HOUR)
    assert gallery.assignments() == [gone_on] and gallery.people_state() == PeopleState(1, 2)


def test_a_cut_before_anybody_has_a_person_refuses_who_knew_the_erased_part(gallery, engine):
    if engine.name == "milvus":
        pytest.skip("Milvus counts no changes before the first")
    cut(gallery)
    with pytest.raises(PeopleChangedError):
        gallery.change_people(PeopleChange(assignments=[assignment(1, 1)], next_person=2), revision=0)


def test_events_are_read_from_where_one_left_off(gallery):
    for round_ in range(3):
        change = PeopleChange(events=[event(track, round_ + 1) for track in range(1, 4)], next_person=9)
        gallery.change_people(change, revision=round_)
    first = gallery.person_events(limit=4)
    rest = gallery.person_events(first[-1].number, limit=100)
    assert [one.person for one in (*first, *rest)] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert gallery.person_events(rest[-1].number, limit=100) == []


def test_two_processes_see_each_others_people(gallery):
    uri = gallery._uri if hasattr(gallery, "_uri") else gallery.name
    other = open_store(uri)
    try:
        other.change_people(PeopleChange(assignments=[assignment(3, 1)], next_person=2), revision=0)
        assert gallery.assignments() == [assignment(3, 1)] and gallery.people_state() == PeopleState(1, 2)
        with pytest.raises(PeopleChangedError):
            gallery.change_people(PeopleChange(assignments=[assignment(4, 1)], next_person=2), revision=0)
    finally:
        other.close()


def test_people_are_in_backups_and_come_back_without_what_was_erased_since(gallery, tmp_path, engine):
    rows = [assignment(1, 1), assignment(2, 1), assignment(3, 2)]
    change = PeopleChange(
        assignments=rows, decisions=[decision(2, 3)], events=[event(1, 1), event(3, 2)], next_person=8
    )
    gallery.change_people(change, revision=0)
    back_up(gallery, tmp_path / "backup.db", now_us=NOON)
    gallery.erase(Selection(cameras=("door",), incarnation="e1", track=2), now_us=NOON)
    journal = tmp_path / "erasures"
    journal.write_text(journal_text(gallery.erasures()))
    uri = engine.uri()
    restore(tmp_path / "backup.db", uri, now_us=NOON, journals=[journal])
    other = open_store(uri)
    assert other.assignments() == [rows[0], rows[2]] and other.decisions() == []
    assert [(one.number, one.tracklet[2]) for one in other.person_events(limit=9)] == [(1, 1), (2, 3)]
    assert other.people_state().next_person == 8
    other.close()
    engine.give_back(uri)


def test_a_restored_gallery_gives_no_number_again_that_the_replaced_one_gave(gallery, tmp_path, engine):
    rows = [assignment(track, track) for track in range(1, 4)]
    change = PeopleChange(assignments=rows, events=[event(track, track) for track in range(1, 4)], next_person=4)
    gallery.change_people(change, revision=0)
    gallery.erase(Selection(cameras=("door",), incarnation="e1", track=1), now_us=NOON)
    back_up(gallery, tmp_path / "backup.db", now_us=NOON)
    later = [event(track, track) for track in range(4, 7)]
    gallery.change_people(PeopleChange(assignments=[assignment(4, 4)], events=later, next_person=7), revision=1)
    gallery.erase(Selection(cameras=("door",), incarnation="e1", track=6), now_us=NOON)
    known = gallery.people_state().revision
    uri = gallery._uri if hasattr(gallery, "_uri") else gallery.name
    replaces = engine.name != "milvus"  # which needs a new database
    if not replaces:
        uri = engine.uri()
    restore(tmp_path / "backup.db", uri, now_us=NOON + 7, force=replaces)
    with contextlib.closing(open_store(uri)) as other:
        assert [(one.number, one.person) for one in other.person_events(limit=9)] == [(2, 2), (3, 3)]
        state = other.people_state()
        assert state.next_person == (7 if replaces else 4) and (state.revision > known or not replaces)
        other.change_people(PeopleChange(events=[event(2, 7)], next_person=8), revision=state.revision)
        assert other.person_events(limit=9)[-1].number == (7 if replaces else 4)
