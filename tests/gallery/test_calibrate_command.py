"""``reid-edge gallery calibrate`` on a real file."""

import json
import time

import pytest

from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.documents import read_document
from tests.commands import run_command
from tests.gallery.crowds import crowd, filled
from tests.gallery.stores import HOUR, MODEL


@pytest.fixture
def uri(tmp_path):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    store = open_store(uri)
    filled(store, crowd(people=141, observations=2, shift=1.0, start=time.time_ns() // 1000 - 5 * HOUR)[0])
    store.close()
    return uri


def calibrate(uri, *arguments, code=0):
    done = run_command("gallery", "calibrate", uri, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def kept(uri):
    store = open_store(uri)
    try:
        return read_document(store, f"comparison/{MODEL}")
    finally:
        store.close()


def test_it_prints_the_curve_with_limits_and_which_rates_are_refused(uri):
    done = calibrate(uri)
    for text in ("423", "seen together", "camera0 ", "0.01", "refused: needs 3,688 independent pairs", "95 % limits"):
        assert text in done.stdout
    assert "between cameras more is missed" in done.stderr.replace("\n", " ")
    assert kept(uri)["tracklets"] == 423


def test_json_has_the_curve_and_what_it_was_made_from(uri):
    fields = json.loads(calibrate(uri, "--json", "--check").stdout)
    assert kept(uri) is None
    assert fields["model_hash"] == MODEL and fields["tracklets"] == 423
    assert fields["pairs_of_one_person"] == {"pairs": 423, "from": "parts of tracklets"}
    points = {point["asked"]: point for point in fields["curve"]}
    assert points[0.01]["false_match"]["high"] <= 0.01
    assert points[0.01]["miss"]["low"] <= points[0.01]["miss"]["rate"] <= points[0.01]["miss"]["high"]
    assert points[0.001] == {"asked": 0.001, "pairs_needed": 3688, "pairs": 423}


def test_a_rate_that_the_pairs_cannot_support_is_refused_and_nothing_is_stored(uri):
    done = calibrate(uri, "--false-match-rate", "0.001", code=1)
    assert "needs 3,688 independent pairs of two people, there are 423" in done.stderr.replace("\n", " ")
    assert kept(uri) is None
    calibrate(uri, "--false-match-rate", "0.01")
    assert kept(uri) is not None
    for rate in ("0", "1", "nan", "-1"):
        assert "above 0 and below 1" in calibrate(uri, "--false-match-rate", rate, code=1).stderr


def test_what_was_learnt_can_be_forgotten(uri):
    calibrate(uri)
    assert "what was learnt is removed" in calibrate(uri, "--forget").stdout
    assert kept(uri) is None
    assert "nothing to remove" in calibrate(uri, "--forget").stdout


def test_labelled_pairs_come_from_a_file(uri, tmp_path):
    pairs = tmp_path / "pairs.csv"
    lines = [f"camera0/e1/{10 * (1 + who)},camera1/e1/{10 * (142 + who)},same" for who in range(40)]
    pairs.write_text("\n".join([*lines, "camera0/e1/77777,camera0/e1/10,different"]))
    done = calibrate(uri, "--pairs", str(pairs), "--json")
    fields = json.loads(done.stdout)
    assert fields["pairs_of_one_person"] == {"pairs": 40, "from": "labels"}
    assert fields["labelled_pairs_left_out"] == 1 and "1 labelled pair left out" in done.stderr
    assert fields["people"]["one_above"] <= fields["people"]["one"] == 40 and fields["people"]["strangers"] == 1
    assert fields["decisions"] == 40 and "40 labelled pairs kept as an operator's decisions" in done.stderr
    shown = " ".join(run_command("gallery", "identify", uri).stdout.split())
    assert "of 40 labelled pairs of one person and 0 of 0 labelled pairs of two people reach" in shown
    pairs.write_text("door,yard,same\n")
    assert "line 1: expected an id" in calibrate(uri, "--pairs", str(pairs), code=1).stderr


def test_an_empty_gallery_cannot_be_calibrated(tmp_path):
    uri = f"sqlite:{tmp_path / 'empty.db'}"
    open_store(uri).close()
    assert "holds no tracklets" in calibrate(uri, code=1).stderr.replace("\n", " ")


@pytest.fixture
def one_by_one(tmp_path):
    uri = f"sqlite:{tmp_path / 'alone.db'}"
    store = open_store(uri)
    filled(store, crowd(people=40, together=1, shift=1.0, start=time.time_ns() // 1000 - 5 * HOUR)[0])
    store.close()
    return uri


def test_where_nobody_was_seen_together_cameras_are_checked_and_decisions_kept_still(one_by_one, tmp_path):
    fields = json.loads(calibrate(one_by_one, "--check", "--json").stdout)
    assert fields["moved_cameras"] == {} and fields["curve"] == [] and fields["tracklets"] == 120
    assert "no calibration was made" in calibrate(one_by_one, "--check").stderr
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("camera0/e1/10,camera1/e1/410,same\n")
    said = " ".join(calibrate(one_by_one, "--pairs", str(pairs)).stderr.split())
    assert "1 labelled pair kept as an operator's decision" in said and "identify --again" in said
    store = open_store(one_by_one)
    assert [decision.kind for decision in store.decisions()] == ["same"]
    store.close()
    assert kept(one_by_one) is None
    for options in ((), ("--check", "--false-match-rate", "0.01")):
        error = " ".join(calibrate(one_by_one, *options, code=1).stderr.split())
        assert "no camera has seen two" in error
