"""What every store must do, on SQLite, on PostgreSQL with pgvector, and on Milvus."""

import dataclasses
import threading

import numpy as np
import pytest

from reid_edge.errors import ModelMismatchError, StoreError
from reid_edge.gallery.entries import LONGEST_RETENTION_HOURS, LONGEST_TRACKLET_US, Selection
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import (
    DEFAULT_RETENTION_HOURS,
    Added,
    AuditEntry,
    CameraSummary,
    Erased,
    Span,
    StoredGap,
    TrackletSpan,
    summarise,
)
from reid_edge.gallery.store.chain import ChainReport, check_chain
from reid_edge.gallery.store.documents import PIECE, read_document, remove_document, write_document
from reid_edge.gallery.store.erasures import MARGIN_US
from reid_edge.upstream.message import MOST_NUMBERS
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, OTHER_MODEL, SECOND, record, unit

EVERYTHING = Selection()


@pytest.fixture
def gallery(store):
    """One model accepted."""
    assert store.accept_model(MODEL, DIM, now_us=NOON)
    return store


def found(store, feature=None, selection=EVERYTHING, *, model=MODEL, top=100):
    query = unit(DIM, seed=999) if feature is None else feature
    return store.search(query, model_hash=model, selection=selection, top=top)


def seqs(matches):
    return sorted(match.entry.seq for match in matches)


def test_what_is_added_is_found_and_got_back_whole(gallery):
    rows = [record(seq) for seq in range(1, 6)]
    assert gallery.add(rows) == Added(stored=5, duplicates=0, erased=0, gaps=0)
    best = found(gallery, rows[2].feature, top=1)[0]
    assert best.entry == rows[2].entry
    assert best.cosine == pytest.approx(1.0, abs=2e-3)
    np.testing.assert_allclose(best.feature, rows[2].feature, atol=1e-3)
    (back,) = gallery.find("door", "e1", 3)
    assert back.entry == rows[2].entry
    assert back.feature.dtype == np.float32
    np.testing.assert_allclose(back.feature, rows[2].feature, atol=1e-3)


def test_adding_again_stores_nothing_and_changes_nothing(gallery):
    rows = [record(seq) for seq in range(1, 6)]
    gallery.add(rows)
    changed = [dataclasses.replace(row, feature=unit(DIM, seed=77)) for row in rows]
    assert gallery.add([*changed, record(6)]) == Added(stored=1, duplicates=5, erased=0, gaps=0)
    assert gallery.span(EVERYTHING).observations == 6
    np.testing.assert_allclose(gallery.find("door", "e1", 3)[0].feature, rows[2].feature, atol=1e-3)


def test_the_same_number_twice_in_one_call_is_stored_once(gallery):
    assert gallery.add([record(1), record(1), record(2)]).stored == 2
    assert gallery.span(EVERYTHING).observations == 2


def test_camera_incarnation_and_number_together_name_an_observation(gallery):
    rows = [
        record(1, camera=camera, incarnation=incarnation) for camera in ("door", "yard") for incarnation in ("e1", "e2")
    ]
    assert gallery.add(rows).stored == 4


def test_a_span_is_from_the_first_sight_to_the_last(gallery):
    assert gallery.span(EVERYTHING) == Span(0, None, None)
    gallery.add([record(1, track=7, at=NOON), record(2, track=7, at=NOON, lasts=HOUR), record(3, at=NOON + 2 * HOUR)])
    tracklet = Selection(cameras=("door",), incarnation="e1", track=7)
    assert gallery.span(tracklet) == Span(2, NOON, NOON + HOUR)
    assert gallery.span(EVERYTHING) == Span(3, NOON, NOON + 2 * HOUR + SECOND)


def test_a_span_may_be_of_one_model(gallery):
    gallery.accept_model(OTHER_MODEL, DIM, now_us=NOON)
    gallery.add([record(1), record(2, at=NOON + HOUR), record(3, model=OTHER_MODEL)])
    assert gallery.span(EVERYTHING).observations == 3
    assert gallery.span(EVERYTHING, MODEL) == Span(2, NOON, NOON + HOUR + SECOND)
    assert gallery.span(Selection(since_us=NOON + HOUR), OTHER_MODEL) == Span(0, None, None)


def test_extreme_values_come_back(gallery):
    last = 2**63 - 1
    entry = dataclasses.replace(record(last, track=last).entry, confidence=1.0, quality=0.0, crops=2**31 - 1)
    gallery.add([dataclasses.replace(record(1), entry=entry)])
    assert gallery.find("door", "e", last)[0].entry == entry


def test_search_ranks_by_cosine_as_a_plain_product_does(gallery):
    features = unit(300, DIM, seed=1)
    gallery.add([record(seq, features[seq]) for seq in range(300)])
    query = unit(DIM, seed=2)
    expected = np.argsort(-(features @ query))[:10]
    matches = found(gallery, query, top=10)
    assert [match.entry.seq for match in matches] == list(expected)
    np.testing.assert_allclose([match.cosine for match in matches], (features @ query)[expected], atol=1e-3)


def test_a_narrow_search_finds_the_best_of_what_is_left(gallery):
    """An index that filters afterwards would return nothing: the ten nearest are all at the other camera."""
    near = unit(DIM, seed=2)
    rows = [record(seq, near) for seq in range(50)]
    far = [record(seq, unit(DIM, seed=seq), camera="yard") for seq in range(100, 103)]
    gallery.add([*rows, *far])
    assert seqs(found(gallery, near, Selection(cameras=("yard",)), top=10)) == [100, 101, 102]


@pytest.fixture(scope="module")
def busy_day(engine):
    store = open_store(engine.uri())
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.add(
        [
            record(1, at=NOON),
            record(2, at=NOON + HOUR, track=7),
            record(3, at=NOON + 2 * HOUR, camera="yard", track=7),
            record(4, at=NOON, lasts=10 * HOUR, camera="hall"),  # in sight all day
            record(5, at=NOON + 3 * HOUR, incarnation="e2"),
        ]
    )
    yield store
    store.close()


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [1, 2, 3, 4, 5]),
        (Selection(cameras=("door",)), [1, 2, 5]),
        (Selection(cameras=("door", "yard")), [1, 2, 3, 5]),
        (Selection(cameras=("nowhere",)), []),
        (Selection(not_cameras=("door",)), [3, 4]),
        (Selection(not_cameras=("door", "hall")), [3]),
        (Selection(cameras=("door",), incarnation="e2"), [5]),
        (Selection(track=7), [2, 3]),
        (Selection(cameras=("yard",), track=7), [3]),
        (Selection(since_us=NOON + HOUR + SECOND), [2, 3, 4, 5]),
        (Selection(since_us=NOON + HOUR + SECOND + 1), [3, 4, 5]),
        (Selection(until_us=NOON + HOUR), [1, 2, 4]),
        (Selection(until_us=NOON + HOUR - 1), [1, 4]),
        (Selection(since_us=NOON + 2 * HOUR, until_us=NOON + 3 * HOUR), [3, 4, 5]),
        (Selection(cameras=("hall",), since_us=NOON + 5 * HOUR, until_us=NOON + 5 * HOUR), [4]),
        (Selection(cameras=("'; DROP TABLE observations; --", 'a"b\\')), []),
    ],
)
def test_selections(busy_day, selection, expected):
    assert seqs(found(busy_day, selection=selection)) == expected
    assert busy_day.span(selection).observations == len(expected)
    # What the store selects is what Selection.covers says, which keeps out what was erased.
    assert seqs(match for match in found(busy_day) if selection.covers(match.entry)) == expected


def test_models_are_never_compared(gallery):
    gallery.accept_model(OTHER_MODEL, DIM, now_us=NOON)
    gallery.add([record(1), record(2, model=OTHER_MODEL)])
    assert seqs(found(gallery)) == [1]
    assert seqs(found(gallery, model=OTHER_MODEL)) == [2]
    assert found(gallery, model="ef" * 32) == []
    assert gallery.span(EVERYTHING).observations == 2


def test_models_may_have_features_of_different_sizes(gallery):
    gallery.accept_model(OTHER_MODEL, 16, now_us=NOON)
    small = record(2, unit(16, seed=5), model=OTHER_MODEL)
    gallery.add([record(1), small])
    assert seqs(found(gallery, unit(16, seed=5), model=OTHER_MODEL)) == [2]
    for selection in (EVERYTHING, Selection(cameras=("door",))):
        assert seqs(found(gallery, selection=selection)) == [1]
    assert gallery.find("door", "e1", 2)[0].feature.shape == (16,)
    assert [key[2] for key in gallery.erase(EVERYTHING, now_us=NOON + HOUR).keys] == [1, 2]


def test_a_model_that_was_not_accepted_is_not_stored(gallery):
    with pytest.raises(ModelMismatchError, match=OTHER_MODEL):
        gallery.add([record(1), record(2, model=OTHER_MODEL)])
    assert gallery.span(Selection(track=2)).observations == 0


def test_models_are_accepted_once_and_the_first_only_first(store):
    assert store.models() == []
    assert store.accept_model(MODEL, DIM, now_us=NOON, only_first=True)
    assert not store.accept_model(OTHER_MODEL, DIM, now_us=NOON, only_first=True)
    assert [model.model_hash for model in store.models()] == [MODEL]
    assert store.accept_model(OTHER_MODEL, None, now_us=NOON + 1)
    assert store.accept_model(OTHER_MODEL, 16, now_us=NOON + 2)
    assert not store.accept_model(OTHER_MODEL, 17, now_us=NOON + 3)
    assert store.accept_model(MODEL, DIM, now_us=NOON + 4)
    assert [dataclasses.astuple(model) for model in store.models()] == [
        (MODEL, DIM, NOON),
        (OTHER_MODEL, 16, NOON + 1),
    ]


def test_a_model_is_forgotten_once_nothing_of_it_is_held_and_can_then_have_another_size(gallery):
    gallery.accept_model(OTHER_MODEL, 1, now_us=NOON + 1)
    gallery.add([record(1), record(2, unit(1), model=OTHER_MODEL)])
    assert gallery.forget_model(OTHER_MODEL) == 1
    assert [model.dim for model in gallery.models()] == [DIM, 1]
    gallery.erase(Selection(track=2), now_us=NOON + SECOND)
    assert gallery.forget_model(OTHER_MODEL) == 0
    assert [model.dim for model in gallery.models()] == [DIM]
    with pytest.raises(ModelMismatchError, match=OTHER_MODEL):
        gallery.add([record(3, model=OTHER_MODEL, at=NOON + HOUR)])
    assert gallery.accept_model(OTHER_MODEL, DIM, now_us=NOON + 2)
    assert gallery.add([record(4, model=OTHER_MODEL, at=NOON + HOUR)]).stored == 1
    assert gallery.forget_model("ef" * 32) == 0
    assert gallery.span(Selection()).observations == 2


def test_find_takes_the_beginning_of_an_incarnation_literally(gallery):
    gallery.add([record(1, incarnation=incarnation) for incarnation in ("abc", "abd", "a_d", "xyz")])
    assert [row.entry.incarnation for row in gallery.find("door", "ab", 1)] == ["abc", "abd"]
    assert [row.entry.incarnation for row in gallery.find("door", "abc", 1)] == ["abc"]
    assert [row.entry.incarnation for row in gallery.find("door", "a_", 1)] == ["a_d"]
    for nothing in (("door", "AB", 1), ("yard", "ab", 1), ("door", "ab", 2), ("door", "%", 1), ("door", "b", 1)):
        assert gallery.find(*nothing) == []


def test_erase_deletes_what_is_meant_and_nothing_else(gallery):
    gallery.add([*(record(seq) for seq in range(1, 6)), *(record(seq, camera="yard") for seq in range(1, 4))])
    erased = gallery.erase(Selection(cameras=("door",)), now_us=NOON + HOUR)
    assert isinstance(erased, Erased)
    assert erased.keys == tuple(("door", "e1", seq) for seq in range(1, 6))
    assert erased.leftovers
    assert {match.entry.camera for match in found(gallery)} == {"yard"}
    assert gallery.find("door", "e1", 3) == []
    assert gallery.span(EVERYTHING).observations == 3


def test_what_was_erased_does_not_come_back(gallery):
    rows = [record(seq) for seq in range(1, 6)]
    gallery.add(rows)
    gallery.erase(Selection(cameras=("door",), until_us=NOON + HOUR), now_us=NOON + 2 * HOUR)
    assert gallery.add([*rows, record(9, camera="yard")]) == Added(stored=1, duplicates=0, erased=5, gaps=0)
    assert {match.entry.camera for match in found(gallery)} == {"yard"}


def test_what_was_erased_before_it_came_is_kept_out(gallery):
    """A camera was away while its morning was erased, and delivers that morning afterwards."""
    gallery.erase(Selection(cameras=("door",), since_us=NOON, until_us=NOON + HOUR), now_us=NOON + 5 * HOUR)
    late = [record(1, at=NOON + SECOND), record(2, at=NOON + 2 * HOUR)]
    assert gallery.add(late) == Added(stored=1, duplicates=0, erased=1, gaps=0)
    assert seqs(found(gallery)) == [2]


def test_what_is_seen_after_an_erasure_is_stored(gallery):
    gallery.add([record(1)])
    gallery.erase(Selection(cameras=("door",)), now_us=NOON + HOUR)
    assert gallery.add([record(2, at=NOON + HOUR + MARGIN_US + 1)]).stored == 1


@pytest.mark.parametrize("until_us", [None, NOON + HOUR, NOON + 3 * HOUR])
def test_what_the_clocks_may_have_stamped_later_than_the_erasure_is_kept_out(gallery, until_us):
    """A camera's clock may be ahead of the gallery's, and the gallery's behind the truth."""
    stored = record(1, at=NOON + HOUR + MARGIN_US - SECOND)
    gallery.add([stored])
    assert len(gallery.erase(Selection(cameras=("door",), until_us=until_us), now_us=NOON + HOUR).keys) == 1
    assert gallery.add([stored, record(2, at=NOON + HOUR + MARGIN_US)]).erased == 2


def test_a_window_that_ended_before_the_erasure_is_erased_as_it_was_asked_for(gallery):
    rows = [record(1, at=NOON), record(2, at=NOON + SECOND)]
    gallery.add(rows)
    assert len(gallery.erase(Selection(until_us=NOON), now_us=NOON + HOUR).keys) == 1
    assert gallery.add(rows) == Added(stored=0, duplicates=1, erased=1, gaps=0)


def test_an_erased_tracklet_stays_erased_while_it_goes_on(gallery):
    """Its later features would still hold what was seen before."""
    gallery.add([record(1, track=7)])
    gallery.erase(Selection(cameras=("door",), incarnation="e1", track=7), now_us=NOON + HOUR)
    going_on = record(2, track=7, at=NOON, lasts=5 * HOUR)
    other = record(3, track=8, at=NOON, lasts=5 * HOUR)
    assert gallery.add([going_on, other]) == Added(stored=1, duplicates=0, erased=1, gaps=0)


def test_a_camera_whose_clock_is_ahead_is_erased_for_good(gallery):
    ahead = record(1, at=NOON + 120 * SECOND)
    gallery.add([ahead])
    assert len(gallery.erase(Selection(cameras=("door",)), now_us=NOON).keys) == 1
    assert gallery.add([ahead]).erased == 1


def test_expiry_deletes_what_was_last_seen_before(gallery):
    gallery.add([record(1, at=NOON, lasts=SECOND), record(2, at=NOON, lasts=HOUR), record(3, at=NOON + HOUR)])
    assert gallery.expire(NOON + 2 * SECOND) == 1
    assert seqs(found(gallery)) == [2, 3]
    assert gallery.expire(NOON + 2 * SECOND) == 0
    assert gallery.expire(NOON + 9 * HOUR) == 2
    assert found(gallery) == []


def test_an_erasure_is_in_force_until_nothing_it_covers_is_young_enough(gallery):
    rows = [record(seq) for seq in range(1, 4)]
    gallery.add(rows)
    gallery.erase(EVERYTHING, now_us=NOON + HOUR)
    gallery.expire(NOON + 2 * HOUR)
    assert gallery.add(rows).erased == 3
    gallery.expire(NOON + LONGEST_TRACKLET_US + int(LONGEST_RETENTION_HOURS) * HOUR)
    assert gallery.add(rows).erased == 3
    gallery.expire(NOON + 2 * HOUR + LONGEST_TRACKLET_US + int(LONGEST_RETENTION_HOURS) * HOUR)
    assert gallery.erasures() == []
    assert gallery.add(rows).stored == 3


def test_erasures_of_another_store_are_applied_and_kept(gallery, sqlite_store):
    rows = [record(seq, camera=camera) for camera in ("door", "yard") for seq in (1, 2)]
    gallery.add(rows)
    sqlite_store.erase(Selection(cameras=("door",)), now_us=NOON + HOUR, boot="b")
    sqlite_store.erase(Selection(track=2), now_us=NOON + 2 * HOUR)
    given = sqlite_store.erasures()
    assert {erasure.boot for erasure in given} == {"b", ""}
    assert gallery.apply_erasures(given).keys == (("door", "e1", 1), ("door", "e1", 2), ("yard", "e1", 2))
    assert gallery.add(rows) == Added(stored=0, duplicates=1, erased=3, gaps=0)
    later = [dataclasses.replace(given[0], selection=Selection(cameras=("door",), until_us=NOON + 9 * HOUR))]
    for some in (later, given):
        gallery.apply_erasures(some)
    assert gallery.erasures() == [later[0], given[1]]


def test_a_document_of_any_length_is_kept_replaced_and_removed(store):
    long = {"numbers": ["ß'\"\\" * 3000] * 8, "rate": 0.125}
    write_document(store, "people/a_b", long)
    write_document(store, "people/aXb", [1])
    assert read_document(store, "people/a_b") == long
    assert read_document(store, "people/aXb") == [1]
    assert read_document(store, "people/a") is None
    write_document(store, "people/a_b", None)
    write_document(store, "people/a_b", {"short": True})
    assert read_document(store, "people/a_b") == {"short": True}
    assert remove_document(store, "people/a_b")
    assert not remove_document(store, "people/a_b")
    assert read_document(store, "people/a_b") is None
    assert read_document(store, "people/aXb") == [1]


@pytest.mark.parametrize("damage", ["lost", "changed", "mixed"])
def test_a_document_of_which_not_all_is_as_it_was_written_is_refused(store, damage):
    write_document(store, "large", "x" * (2 * PIECE))
    pieces = store.settings("document/large/")
    assert len(pieces) == 3
    name = sorted(pieces)[1]
    changed = {"lost": None, "changed": pieces[name].replace("x", "y", 1), "mixed": "0" * 8 + pieces[name][8:]}
    store.change_settings({name: changed[damage]})
    with pytest.raises(StoreError, match=r"the document large in .* is not what was written"):
        read_document(store, "large")
    write_document(store, "large", "as new")
    assert read_document(store, "large") == "as new"


def test_settings_are_kept_changed_and_removed(store):
    before = store.settings()
    store.change_settings({"clock/a": "1", "clock/b": "ß'\"", "replay": "x"})
    assert store.settings("clock/") == {"clock/a": "1", "clock/b": "ß'\""}
    store.change_settings({"clock/a": None, "clock/b": "2"})
    assert store.settings("clock/") == {"clock/b": "2"}
    assert store.settings() == {**before, "clock/b": "2", "replay": "x"}


def test_what_was_sent_elsewhere_is_one_gap_that_grows(gallery):
    first = gap(1, 5, reason="elsewhere")
    assert gallery.add([], [first]) == Added(0, 0, 0, gaps=0, elsewhere=5)
    again = [first, gap(4, 9, reason="elsewhere"), gap(3, 3)]
    assert gallery.add([], again) == Added(0, 0, 0, gaps=1, elsewhere=4)
    (camera,) = gallery.cameras()
    assert (camera.gaps, camera.lost, camera.elsewhere) == (1, 1, 9)
    assert gallery.add([], [gap(1, 2, camera="yard", reason="elsewhere")]).elsewhere == 2
    assert summarise(gallery).elsewhere == 11


@pytest.mark.parametrize("first", ["lost", "elsewhere"])
def test_a_declared_gap_and_one_of_what_was_sent_elsewhere_may_cover_the_same_numbers(gallery, first):
    gaps = [gap(1, 5, reason="elsewhere"), gap(1, 5, reason="lost")]
    for one in gaps if first == "elsewhere" else reversed(gaps):
        gallery.add([], [one])
    (camera,) = gallery.cameras()
    assert (camera.gaps, camera.lost, camera.elsewhere) == (1, 5, 5)


def test_the_audit_is_chained_and_goes_on_after_opening_again(engine):
    uri = engine.uri()
    for start in (0, 3):
        store = open_store(uri)
        given = [store.audit_append(audit(number)) for number in range(start, start + 3)]
        store.close()
    store = open_store(uri)
    lines = store.audit_entries(10)
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[3:] == given
    assert [line.hash for line in lines[3:]] == [line.hash for line in given]
    assert check_chain(lines) == ChainReport(6, given[-1].hash, ())
    store.close()


def test_several_that_add_to_the_audit_at_once_make_one_chain(engine):
    if engine.name == "milvus":
        pytest.skip("Milvus Lite takes no concurrent writers (its README)")
    uri = engine.uri()
    stores = [open_store(uri) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda store=store: [store.audit_append(audit(number)) for number in range(8)])
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stores[0].audit_entries(100)
    assert check_chain(lines).faults == ()
    assert len(lines) == 24
    for store in stores:
        store.close()


def gap(first, last, *, camera="door", at=NOON, reason="full"):
    return StoredGap(
        camera=camera,
        incarnation="e1",
        first_seq=first,
        last_seq=last,
        count=last - first + 1,
        reason=reason,
        received_us=at,
    )


def test_gaps_are_stored_once_and_expire(gallery):
    assert gallery.add([record(9)], [gap(1, 5), gap(7, 7, reason="lost")]).gaps == 2
    assert gallery.add([], [gap(1, 5), gap(1, 3, camera="yard", at=NOON + HOUR)]) == Added(0, 0, 0, 1)
    summaries = gallery.cameras()
    assert [(one.camera, one.gaps, one.lost) for one in summaries] == [("door", 2, 6), ("yard", 1, 3)]
    gallery.expire(NOON + 1)
    assert [(one.camera, one.gaps) for one in gallery.cameras()] == [("door", 0), ("yard", 1)]


def test_the_longest_feature_that_a_camera_may_send_is_stored_and_found(store):
    store.accept_model(MODEL, MOST_NUMBERS, now_us=NOON)
    longest = unit(MOST_NUMBERS)
    assert store.add([record(1, longest)]).stored == 1
    assert seqs(found(store, longest)) == [1]


def test_cameras_are_summed_up(gallery):
    assert gallery.cameras() == []
    gallery.add(
        [
            record(1, track=1, at=NOON),
            record(2, track=1, at=NOON, lasts=HOUR),
            record(1, track=1, incarnation="e2", at=NOON + HOUR, lasts=SECOND),
            record(1, camera="Yard", at=NOON + 5),
        ]
    )
    common = {"gaps": 0, "lost": 0}
    assert gallery.cameras() == [
        CameraSummary(
            camera="Yard", observations=1, tracklets=1, first_us=NOON + 5, last_us=NOON + 5 + SECOND, **common
        ),
        CameraSummary(
            camera="door", observations=3, tracklets=2, first_us=NOON, last_us=NOON + HOUR + SECOND, **common
        ),
    ]


def test_cameras_are_summed_up_from_a_time_on(gallery):
    gallery.add(
        [record(1), record(2, at=NOON + HOUR), record(3, camera="yard")], [gap(5, 6), gap(7, 7, at=NOON + HOUR)]
    )
    (door,) = gallery.cameras(NOON + HOUR)
    assert (door.camera, door.observations, door.first_us, door.lost) == ("door", 1, NOON + HOUR, 1)


def test_a_search_from_a_time_on_leaves_out_what_was_last_seen_before(gallery):
    gallery.add([record(seq, at=NOON + seq * HOUR) for seq in range(6)])
    for since in range(7):
        assert seqs(found(gallery, selection=Selection(since_us=NOON + since * HOUR))) == list(range(since, 6))


def test_a_large_deletion_is_made_in_pieces_each_of_which_is_in_the_audit(gallery, monkeypatch):
    monkeypatch.setattr("reid_edge.gallery.store.sql.MOST_DELETED", 3)
    gallery.add([record(seq) for seq in range(10)] + [record(11, at=NOON + HOUR)])
    note = AuditEntry(at_us=NOON, user="u", action="expire", purpose="", detail={"before_us": 1})
    assert gallery.expire(NOON + HOUR, note) == 10
    assert sum(line.detail["observations"] for line in gallery.audit_entries(99) if line.action == "expire") == 10
    assert seqs(found(gallery)) == [11]


def test_retention_is_kept(store):
    assert store.retention_hours() == DEFAULT_RETENTION_HOURS
    store.set_retention_hours(0.5)
    store.set_retention_hours(36.25)
    assert store.retention_hours() == 36.25


@pytest.mark.parametrize("hours", ["96.25", "nan", "x", "-1"])
def test_a_retention_that_was_not_set_so_is_an_error_until_it_is_set_again(store, hours):
    store.set_retention_hours(36.25)
    store.change_settings({"retention_hours": hours})
    with pytest.raises(StoreError, match="set it again"):
        store.retention_hours()
    store.set_retention_hours(5)
    assert store.retention_hours() == 5


def audit(number, **detail):
    return AuditEntry(at_us=NOON + number, user="ann", action="search", purpose="lost child", detail=detail)


def test_the_audit_keeps_its_order(store):
    for number in range(5):
        store.audit_append(audit(number, query="ß \N{SNOWMAN} ' \" \\", ids=[f"door/e1/{number}"], none=None))
    entries = store.audit_entries(3)
    assert [entry.at_us - NOON for entry in entries] == [2, 3, 4]
    assert entries[-1].number > entries[0].number
    assert dataclasses.replace(entries[-1], number=0) == audit(
        4, query="ß \N{SNOWMAN} ' \" \\", ids=["door/e1/4"], none=None
    )


def test_everything_is_there_after_opening_again(engine):
    uri = engine.uri()
    first = open_store(uri)
    first.accept_model(MODEL, DIM, now_us=NOON)
    first.add([record(1), record(2, camera="yard")], [gap(5, 6)])
    first.erase(Selection(cameras=("yard",)), now_us=NOON + HOUR)
    first.set_retention_hours(5)
    first.audit_append(audit(1))
    first.close()
    again = open_store(uri, create=False)
    assert [model.model_hash for model in again.models()] == [MODEL]
    assert seqs(found(again)) == [1]
    assert again.add([record(2, camera="yard")]).erased == 1
    assert again.retention_hours() == 5
    assert len(again.audit_entries(10)) == 1
    assert again.cameras()[0].lost == 2
    again.close()


def test_two_that_are_open_at_once_see_what_the_other_does(engine):
    uri = engine.uri()
    one, other = open_store(uri), open_store(uri)
    one.accept_model(MODEL, DIM, now_us=NOON)
    one.add([record(1), record(2)])
    assert seqs(found(other)) == [1, 2]
    other.add([record(3)])
    assert seqs(found(one)) == [1, 2, 3]
    one.erase(Selection(track=1), now_us=NOON + HOUR)
    assert seqs(found(other)) == [2, 3]
    assert other.add([record(1)]).erased == 1
    one.close()
    other.close()


def test_threads_that_store_the_same_store_it_once(engine):
    if engine.name == "milvus":
        pytest.skip("Milvus Lite takes no concurrent writers (its README); of one store's threads, see below")
    uri = engine.uri()
    stores = [open_store(uri) for _ in range(3)]
    stores[0].accept_model(MODEL, DIM, now_us=NOON)
    assert stored_by_threads(stores) == 200
    assert stores[0].span(EVERYTHING).observations == 200
    for store in stores:
        store.close()


def test_one_store_serves_several_threads(gallery):
    assert stored_by_threads([gallery] * 3) == 200
    assert gallery.span(EVERYTHING).observations == 200


def stored_by_threads(stores):
    """Each thread stores the same 200 observations, in an order of its own."""
    rows = [record(seq) for seq in range(200)]
    counts = []

    def work(number):
        mine = np.random.default_rng(number).permutation(200)
        for start in range(0, 200, 50):
            counts.append(stores[number].add([rows[index] for index in mine[start : start + 50]]).stored)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def test_what_is_not_there_is_not_made_unless_asked_for(engine):
    with pytest.raises(StoreError, match="there is no gallery"):
        open_store(engine.uri(), create=False)


def test_tracklets_are_listed_with_the_last_seen_first(gallery):
    gallery.add(
        [
            record(1, track=1, at=NOON),
            record(2, track=1, at=NOON + 5 * SECOND),
            record(3, track=2, at=NOON + 2 * SECOND),
            record(1, track=1, camera="yard", at=NOON - HOUR),
        ]
    )
    first = TrackletSpan("door", "e1", 1, 2, NOON, NOON + 6 * SECOND, 2)
    second = TrackletSpan("door", "e1", 2, 3, NOON + 2 * SECOND, NOON + 3 * SECOND, 1)
    third = TrackletSpan("yard", "e1", 1, 1, NOON - HOUR, NOON - HOUR + SECOND, 1)
    assert gallery.tracklets(EVERYTHING, limit=9) == [first, second, third]
    assert gallery.tracklets(EVERYTHING, limit=1, skip=1) == [second]
    assert gallery.tracklets(Selection(cameras=("yard",)), limit=9) == [third]
    assert gallery.tracklets(Selection(until_us=NOON - 1), limit=9) == [third]
