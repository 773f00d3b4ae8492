"""Searches that are centred, re-ranked and judged."""

import json
import time

import numpy as np
import pytest

from reid_edge.errors import ModelMismatchError, UsageError
from reid_edge.features import l2_normalised
from reid_edge.gallery.calibrating import calibrate, keep
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.labelled_pairs import LabelledPair
from reid_edge.gallery.ranking import ranking_for
from reid_edge.gallery.search import find_one, joined_query, query_by_feature, query_of, search
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.documents import write_document
from tests.commands import run_command
from tests.gallery.crowds import DIM, crowd, filled
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, unit

LATER = NOON + HOUR
PEOPLE = 141


def look(store, query, *, now_us=LATER, selection=None, top=10, cameras="all", plain=False, **options):
    ranking = None if plain else ranking_for(store, query.model_hash, now_us=now_us, **options)
    return search(
        store,
        query,
        selection=selection or Selection(),
        purpose="a test",
        now_us=now_us,
        top=top,
        cameras=cameras,
        ranking=ranking,
    )


def of(store, seq, *, camera="camera0", now_us=LATER):
    return query_of(find_one(store, f"{camera}/e1/{seq}", now_us=now_us))


def picture(feature):
    return query_by_feature(feature, MODEL, image_sha256="f" * 64)


def person(track):
    return (track - 1) % PEOPLE


def precision(store, **options):
    """Share of searches of the first camera's people that name the same person of another camera first."""
    right = [
        person(look(store, of(store, 10 * track), cameras="other", top=1, **options)[0].best.track) == person(track)
        for track in range(1, 60)
    ]
    return np.mean(right)


def learn(store, **options):
    report = calibrate(store, now_us=LATER, find=lambda name: find_one(store, name, now_us=LATER), **options)
    keep(store, report, now_us=LATER)
    return report


@pytest.fixture
def shifted(sqlite_store):
    """Three cameras whose light moves all features a good deal."""
    return filled(sqlite_store, crowd(people=PEOPLE, noise=1.4, shift=1.5)[0])


def test_what_another_model_has_stored_makes_no_stranger_more_likely(shifted):
    learn(shifted)
    before = [one.verdict.by_chance for one in look(shifted, of(shifted, 10))]
    filled(shifted, crowd(people=PEOPLE, first_track=5000, model=OTHER_MODEL)[0])
    assert [one.verdict.by_chance for one in look(shifted, of(shifted, 10))] == before


def test_centring_finds_more_people_on_other_cameras_and_plain_is_the_exact_order(shifted):
    assert precision(shifted) > precision(shifted, plain=True) + 0.1
    query = of(shifted, 10)
    plain = look(shifted, query, plain=True, top=50)
    assert [one.cosine for one in plain] == sorted((one.cosine for one in plain), reverse=True)
    wanted = shifted.search(query.feature, model_hash=MODEL, selection=Selection(), top=51)
    assert [one.best.seq for one in plain] == [match.entry.seq for match in wanted if match.entry.seq != 10]


def test_the_centred_order_is_that_of_comparing_all_centred_features(shifted):
    query = of(shifted, 10)
    found = look(shifted, query, top=40)
    centring = ranking_for(shifted, MODEL, now_us=LATER).comparison.scale.centring
    records = shifted.search(query.feature, model_hash=MODEL, selection=Selection(), top=999)
    scores = {
        match.entry.seq: float(
            centring.applied_to(l2_normalised(match.feature[None])[0], match.entry.camera)
            @ centring.applied_to(query.feature, "camera0")
        )
        for match in records
        if match.entry.seq != 10
    }
    assert [one.best.seq for one in found] == sorted(scores, key=scores.get, reverse=True)[:40]


def test_reranking_lists_first_what_shares_neighbours(sqlite_store):
    rows = [row for visit in range(4) for row in crowd(people=47, noise=1.5, first_track=1 + 141 * visit, seed=0)[0]]
    generator = np.random.default_rng(8)
    for row in rows:
        row.feature[:] = l2_normalised((row.feature + generator.normal(size=DIM) * 0.12)[None])[0]
    filled(sqlite_store, rows)

    def right(**options):
        found = [look(sqlite_store, of(sqlite_store, 10 * track), top=11, **options) for track in range(1, 40)]
        return np.mean([(one.best.track - 1) % 47 == at for at, each in enumerate(found) for one in each])

    assert right(rerank=True) > right()


def test_few_tracklets_are_listed_in_the_plain_order_and_not_judged(sqlite_store):
    filled(sqlite_store, crowd(people=6)[0])
    query = of(sqlite_store, 10)
    found, plain = look(sqlite_store, query), look(sqlite_store, query, plain=True)
    assert [one.best for one in found] == [one.best for one in plain]
    assert {one.verdict for one in found} == {None}


def test_each_hit_is_judged_with_the_rate_behind_it(sqlite_store):
    filled(sqlite_store, crowd(people=PEOPLE, noise=0.8, shift=1.0)[0])
    report = learn(sqlite_store)
    words = []
    for track in range(1, PEOPLE + 1):
        for one in look(sqlite_store, of(sqlite_store, 10 * track), top=5):
            words.append((one.verdict.word, person(one.best.track) == person(track)))
            assert one.verdict.false_match == report.calibration.false_match(one.similarity)
            if one.verdict.word == "same":
                assert one.verdict.false_match.high <= 0.01 and one.verdict.by_chance < 0.2
    assert words.count(("same", True)) > PEOPLE
    assert words.count(("same", False)) <= 0.05 * PEOPLE
    strict = look(sqlite_store, of(sqlite_store, 10), false_match_rate=0.001)
    assert {one.verdict.word for one in strict} == {"unsure"}  # 423 tracklets do not support it
    entry = sqlite_store.audit_entries(1)[0].detail
    assert (entry["calibration"], entry["rerank"]) == (report.comparison.scale.version, False)


def test_labelled_pairs_tell_who_is_other(sqlite_store):
    filled(sqlite_store, crowd(people=PEOPLE, noise=0.8)[0])
    ids = [[f"camera{camera}/e1/{10 * (1 + who + camera * PEOPLE)}" for camera in (0, 1)] for who in range(PEOPLE)]
    learn(sqlite_store, pairs=[LabelledPair(*pair, True, line) for line, pair in enumerate(ids)])
    found = look(sqlite_store, of(sqlite_store, 10), top=100)
    assert [one.verdict.word for one in found[:2]] == ["same", "same"]
    assert found[-1].verdict.word == "other" and found[-1].verdict.false_match.rate > 0.1


def test_verdicts_are_about_the_newest_observation_of_a_tracklet_as_the_calibration_was(sqlite_store):
    rows, _ = crowd(people=PEOPLE, observations=3)
    filled(sqlite_store, rows)
    learn(sqlite_store)
    ranking = ranking_for(sqlite_store, MODEL, now_us=LATER)
    query = of(sqlite_store, 12)
    one = look(sqlite_store, query, top=1)[0]
    newest = max((row for row in rows if row.entry.tracklet == one.best.tracklet), key=lambda row: row.entry.seq)
    similarity, _ = ranking.judged(ranking.mean([(query.feature, "camera0")]), ["camera0"], newest, 423)
    assert one.similarity == pytest.approx(similarity, abs=0.02)
    assert ranking.compared(1269) == 423


def test_the_mean_of_several_pictures_finds_what_one_of_them_does_not(shifted):
    generator = np.random.default_rng(4)
    one, several = [], []
    for track in range(1, 60):
        feature = of(shifted, 10 * track).feature
        crops = [picture(feature + 0.3 * generator.normal(size=DIM).astype(np.float32)) for _ in range(5)]
        for answers, query in ((one, crops[0]), (several, joined_query(crops))):
            answers.append(person(look(shifted, query, top=1)[0].best.track) == person(track))
    assert np.mean(several) > np.mean(one) + 0.1


def test_several_queries_are_joined_and_all_of_their_tracklets_left_out(shifted):
    joined = joined_query([of(shifted, 10), of(shifted, 10 * (1 + PEOPLE), camera="camera1")])
    found = look(shifted, joined, top=100)
    assert not {1, 1 + PEOPLE} & {one.best.track for one in found}
    assert {one.best.camera for one in look(shifted, joined, cameras="other", top=100)} == {"camera2"}
    assert {one.best.camera for one in look(shifted, joined, cameras="same", top=200)} == {"camera0", "camera1"}
    detail = shifted.audit_entries(1)[0].detail
    assert detail["query"] == {"mean_of": [{"id": "camera0/e1/10"}, {"id": f"camera1/e1/{10 * (1 + PEOPLE)}"}]}
    other = query_by_feature(unit(DIM), OTHER_MODEL, image_sha256="0" * 64)
    with pytest.raises(ModelMismatchError, match="2 models"):
        joined_query([of(shifted, 10), other])
    with pytest.raises(UsageError, match="--image FILE"):
        joined_query([])


def test_a_damaged_calibration_does_not_stop_a_search(shifted):
    learn(shifted)
    write_document(shifted, f"comparison/{MODEL}", {"format": 99})
    query = of(shifted, 10)
    assert [one.best for one in look(shifted, query)] == [one.best for one in look(shifted, query, plain=True)]
    assert "reid-edge gallery calibrate" in ranking_for(shifted, MODEL, now_us=LATER).trouble


@pytest.mark.parametrize("rate", [0, 1, -1, float("nan")])
def test_a_rate_that_is_none_is_refused(shifted, rate):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        ranking_for(shifted, MODEL, now_us=LATER, false_match_rate=rate)


def test_the_command_prints_verdicts_and_rates_and_json_carries_them(tmp_path):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    store = open_store(uri)
    start = time.time_ns() // 1000 - 5 * HOUR
    filled(store, crowd(people=PEOPLE, shift=1.0, start=start)[0])
    store.close()

    def run(*arguments, code=0):
        done = run_command("gallery", *arguments, "--purpose", "a test")
        assert done.returncode == code, done.stdout + done.stderr
        return done

    assert run_command("gallery", "calibrate", uri).returncode == 0
    shown = run("search", uri, "--id", "camera0/e1/10", "--id", "camera1/e1/1420", "--top", "3", "--rerank").stdout
    for text in ("verdict", "same", "strangers", "camera2/e1/2830", "fewer than 0.2", "423 tracklets"):
        assert text in shown
    first, *_, last = json.loads(run("search", uri, "--id", "camera0/e1/10", "--top", "20", "--json").stdout)
    assert first["verdict"] == "same" and last["verdict"] == "unsure"
    assert first["false_match_rate"] <= first["false_match_limit"] <= 0.01 < last["false_match_rate"]
    assert first["strangers_expected"] < 0.2 and first["similarity"] > last["similarity"]
    refused = run("search", uri, "--id", "camera0/e1/10", "--false-match-rate", "0.001").stdout
    assert "nothing can be called the same" in refused and "3,688" in refused
    plain = run("search", uri, "--id", "camera0/e1/10", "--plain", "--json").stdout
    assert {one["verdict"] for one in json.loads(plain)} == {None}
    assert "not both" in run("search", uri, "--id", "camera0/e1/10", "--plain", "--rerank", code=1).stderr
