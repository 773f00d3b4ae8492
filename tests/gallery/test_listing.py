"""``reid-edge gallery tracklets``: a list of what is stored, as a table, CSV and JSON, accounted for in the audit."""

import contextlib
import csv
import datetime
import io
import json
import stat

import pytest

from reid_edge.camera.played_files import PlayedFile, note_played
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.store import open_store
from tests.gallery.stores import HOUR, SECOND, batch, record, unit
from tests.gallery.test_commands import WHY, failure, gallery, now, uri  # noqa: F401 - fixtures


def test_tracklets_are_listed_without_features_and_accounted_for(uri, now, tmp_path):  # noqa: F811
    shown = gallery("tracklets", uri, *WHY)
    assert [shown.count(name) for name in ("yard/e1/1", "door/abcdef01/1", "door/abcdef01/2")] == [1, 1, 1]
    rows = list(csv.DictReader(io.StringIO(gallery("tracklets", uri, "--csv", "-", *WHY))))
    assert [row["id"] for row in rows] == ["yard/e1/1", "door/abcdef0123456789/1", "door/abcdef0123456789/2"]
    assert (rows[0]["crops"], rows[0]["quality"], rows[0]["x2"]) == ("3", "0.5", "0.5")
    assert int(rows[0]["first_us"]) == now - HOUR // 2
    assert not any("feature" in name for name in rows[0])
    assert {row["person"] for row in rows} == {""}
    gallery("identify", uri)
    rows = list(csv.DictReader(io.StringIO(gallery("tracklets", uri, "--csv", "-", *WHY))))
    people = json.loads(gallery("people", uri, "--json", *WHY))
    assert sorted(int(row["person"]) for row in rows) == sorted(one["person"] for one in people)
    file = tmp_path / "list.csv"
    gallery("tracklets", uri, "--camera", "door", "--since", "90m", "--csv", file, *WHY)
    assert [row["track"] for row in csv.DictReader(file.open())] == ["1"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "exists already" in failure("tracklets", uri, "--csv", file, *WHY)
    assert [one["id"] for one in json.loads(gallery("tracklets", uri, "--json", "--limit", 1, "--skip", 1, *WHY))] == [
        "door/abcdef0123456789/1"
    ]
    entries = json.loads(gallery("audit", uri, "--json", "--action", "tracklets"))
    assert [entry["purpose"] for entry in entries] == ["a test"] * 5
    assert [entry["detail"]["tracklets"] for entry in entries] == [3, 3, 3, 1, 1]
    assert "--limit from 1 to 10,000" in failure("tracklets", uri, "--limit", 10_001, *WHY)
    assert "--purpose" in gallery("tracklets", uri, code=2)


def test_positions_in_a_file_are_counted_from_its_first_frame(uri, now):  # noqa: F811
    began_us = (now - HOUR) // SECOND * SECOND - 30 * SECOND
    began = datetime.datetime.fromtimestamp(began_us // SECOND, datetime.timezone.utc).isoformat()
    options = ("tracklets", uri, "--since", "90m", "--camera", "door", "--file-start", began, *WHY)
    (row,) = csv.DictReader(io.StringIO(gallery(*options, "--csv", "-")))
    assert float(row["position_s"]) == pytest.approx((now - HOUR - began_us) / SECOND)
    assert "in the file" in gallery(*options) and f"{float(row['position_s']):.2f} s" in gallery(*options)
    assert "in the file" not in gallery("tracklets", uri, *WHY)


@pytest.fixture
def a_run(tmp_path, monkeypatch):
    """Notes a run of a file, in which the cameras' tracklets were seen."""
    monkeypatch.setattr("reid_edge.cli.state_folders.ROOTS", (tmp_path / "states",))

    def a_run(first_us, file="street.avi", epoch="abcdef0123456789", first_track=1, next_track=2):
        (tmp_path / "states" / "door").mkdir(parents=True, exist_ok=True)
        run = PlayedFile(
            file=f"/videos/{file}",
            version="1 2",
            at_us=0,
            camera="door",
            epoch=epoch,
            first_track=first_track,
            next_track=next_track,
            first_us=first_us,
        )
        note_played(tmp_path / "states" / "door", run)

    return a_run


def test_positions_are_shown_of_files_that_were_run_on_this_machine(uri, now, a_run):  # noqa: F811
    options = ("tracklets", uri, "--since", "90m", "--camera", "door", *WHY)
    (plain,) = json.loads(gallery(*options, "--json"))
    assert (plain["position_s"], plain["file"]) == (None, None)
    a_run(now - HOUR - 90 * SECOND)
    (row,) = json.loads(gallery(*options, "--json"))
    assert row["file"] == "street.avi" and row["position_s"] == pytest.approx(90)
    assert "90.00 s of street.avi" in gallery(*options)
    a_run(now, first_track=2, next_track=9)
    assert "90.00 s of street.avi, run 1" in gallery(*options)
    began = datetime.datetime.fromtimestamp((now - HOUR) // SECOND - 30, datetime.timezone.utc).isoformat()
    (given,) = json.loads(gallery(*options, "--json", "--file-start", began))
    assert given["file"] is None and given["position_s"] == pytest.approx(30, abs=1)


@pytest.mark.parametrize("other", [{"epoch": "0" * 16}, {"first_track": 2, "next_track": 9}, {"next_track": 1}])
def test_a_tracklet_of_another_run_gets_no_position(uri, now, a_run, other):  # noqa: F811
    a_run(now - HOUR, **other)
    (row,) = json.loads(gallery("tracklets", uri, "--since", "90m", "--camera", "door", "--json", *WHY))
    assert row["position_s"] is None


def test_a_looped_file_and_a_damaged_note_give_no_position(uri, now, a_run, tmp_path):  # noqa: F811
    options = ("tracklets", uri, "--since", "90m", "--camera", "door", "--json", *WHY)
    a_run(None)
    assert json.loads(gallery(*options))[0]["position_s"] is None
    note = tmp_path / "states" / "door" / "played.json"
    for damaged in (b"", b"{}", b"[1, {}]", note.read_bytes()[:-5], b"\xff" * 40):
        note.write_bytes(damaged)
        assert json.loads(gallery(*options))[0]["position_s"] is None


@pytest.mark.parametrize("first", "=+-@")
def test_a_files_name_is_no_formula_in_csv(uri, now, a_run, first):  # noqa: F811
    a_run(now - HOUR, file=first + "HYPERLINK(1).avi")
    (row,) = csv.DictReader(
        io.StringIO(gallery("tracklets", uri, "--camera", "door", "--since", "90m", "--csv", "-", *WHY))
    )
    assert row["file"] == f"'{first}HYPERLINK(1).avi"


def test_an_id_is_printed_whole_however_long_the_cameras_name_is(tmp_path, now):  # noqa: F811
    camera = "a" * 60
    with contextlib.closing(open_store(f"sqlite:{tmp_path / 'long.db'}")) as store:
        Collector(store).receive([batch([record(1, unit(512, seed=1), camera=camera, at=now - HOUR)], camera=camera)])
    assert f"{camera}/e1/1 " in gallery("tracklets", f"sqlite:{tmp_path / 'long.db'}", *WHY)


def test_a_list_of_nothing_says_so(uri):  # noqa: F811
    assert "nothing found" in gallery("tracklets", uri, "--camera", "nowhere", *WHY)


def test_a_search_as_csv_has_what_json_has(uri, now, tmp_path):  # noqa: F811
    options = ("search", uri, "--id", "yard/e1/1", *WHY)
    expected = json.loads(gallery(*options, "--json"))
    rows = list(csv.DictReader(io.StringIO(gallery(*options, "--csv", "-"))))
    assert [(row["id"], float(row["cosine"])) for row in rows] == [(one["id"], one["cosine"]) for one in expected]
    assert (rows[0]["verdict"], rows[0]["x1"], rows[0]["mapped"]) == ("", "0.125", "False")
    file = tmp_path / "found.csv"
    gallery(*options, "--csv", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_text().splitlines()) == 1 + len(expected)
    assert "exists already" in failure(*options, "--csv", file)
