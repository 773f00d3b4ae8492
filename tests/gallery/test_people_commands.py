"""The commands about people, as an operator types them."""

import contextlib
import csv
import datetime
import io
import json

import pytest

from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us
from tests.commands import run_command
from tests.gallery.people_scenes import filled
from tests.gallery.stores import HOUR
from tests.gallery.test_commands import WHY, failure, gallery


@pytest.fixture
def uri(tmp_path):
    """Thirty people, three tracklets each."""
    address = f"sqlite:{tmp_path / 'gallery.db'}"
    with contextlib.closing(open_store(address)) as store:
        filled(store, at=now_us() - HOUR)
    return address


def people(uri, *options):
    return json.loads(gallery("people", uri, "--json", *options, *WHY))


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ({"people": 5}, "No tracklets were joined: fewer than 20 do not tell"),
        ({"people": 20, "cameras": 2, "noise": 1.2}, "only those are joined that are nearly certain"),
    ],
)
def test_why_hardly_anybody_is_joined_is_said_with_what_to_do(tmp_path, scene, said):
    address = f"sqlite:{tmp_path / 'few.db'}"
    with contextlib.closing(open_store(address)) as store:
        filled(store, at=now_us() - HOUR, **scene)
    assert said in " ".join(gallery("identify", address).split())


def test_people_are_found_listed_and_followed(uri, tmp_path):
    assert "nobody found" in gallery("people", uri, *WHY)
    shown = " ".join(gallery("identify", uri).split())
    assert "30 people in 90 tracklets: 90 tracklets share a person" in shown and "certain" not in shown
    assert (
        "Tracklets are joined from 3.56 on; behind this limit: the numbers of tracklets and of matches (no lab" in shown
    )
    assert json.loads(gallery("identify", uri, "--json"))[0]["way"] == "nothing new"
    found = people(uri)
    assert len(found) == 30 and found[0]["cameras"] == ["camera0", "camera1", "camera2"]
    assert (found[0]["tracklets"], found[0]["sure"]) == (3, "assigned") and found[0]["similarity"] > 2.25
    shown = gallery("people", uri, "--limit", 2, "--skip", 1, *WHY)
    assert (
        "camera0, camera1, camera2" in shown and "assigned, " in shown and "Behind the limit: the numbers of" in shown
    )
    assert len(people(uri, "--camera", "nowhere")) == 0 and len(people(uri, "--tracklets", 3, "--since", "2h")) == 30
    rows = list(csv.DictReader(io.StringIO(gallery("people", uri, "--csv", "-", *WHY))))
    assert len(rows) == 30 and rows[0]["cameras"] == "camera0 camera1 camera2"
    number = found[0]["person"]
    file = tmp_path / "journey.csv"
    gallery("person", uri, number, "--csv", file, *WHY)
    journey = list(csv.DictReader(file.open()))
    assert [row["camera"] for row in journey] == ["camera0", "camera1", "camera2"]
    assert "exists already" in failure("person", uri, number, "--csv", file, *WHY)
    shown = gallery("person", uri, number, *WHY)
    assert journey[0]["id"] in shown and "nearer than strangers are" in shown
    assert json.loads(gallery("person", uri, number, "--json", *WHY))[0]["id"] == journey[0]["id"]
    assert journey[0]["position_s"] == journey[0]["file"] == "" and "in the file" not in shown
    began = datetime.datetime.fromtimestamp(int(journey[0]["first_us"]) / 1e6 - 30, datetime.timezone.utc).isoformat()
    placed = json.loads(gallery("person", uri, number, "--json", "--file-start", began, *WHY))
    assert placed[0]["position_s"] == pytest.approx(30, abs=1)
    assert "in the file" in gallery("person", uri, number, "--file-start", began, *WHY)
    assert "has no person 99" in failure("person", uri, 99, *WHY)
    assert "--purpose" in gallery("people", uri, code=2) and "--purpose" in gallery("person", uri, 1, code=2)


def test_an_operator_merges_splits_and_keeps_apart(uri):
    gallery("identify", uri)
    assert "they are person 2 now" in gallery("merge", uri, 2, 1, *WHY)
    (merged,) = people(uri, "--tracklets", 6)
    assert merged["person"] == 2
    ids = [row["id"] for row in json.loads(gallery("person", uri, 2, "--json", *WHY)) if row["track"] in (0, 30, 60)]
    options = [part for one in ids for part in ("--id", one)]
    assert "--withdraw" in failure("split", uri, 2, *options, *WHY)
    assert "they are person 31 now" in gallery("split", uri, 2, *options, "--withdraw", *WHY)
    assert "stay two people" in gallery("not-same", uri, 3, 4, *WHY)
    assert "ContradictionError" in failure("merge", uri, 3, 4, *WHY)
    actions = [line["action"] for line in json.loads(gallery("audit", uri, "--json"))]
    assert [one for one in actions if one in ("merge", "split", "not-same")] == [
        "merge", "split", "split", "not-same", "merge",
    ]  # fmt: skip


def test_a_person_is_erased_by_number(uri):
    gallery("identify", uri)
    assert "3 tracklets of person 7 would be erased" in gallery("erase", uri, "--person", 7, *WHY, code=1)
    receipt = json.loads(gallery("erase", uri, "--person", 7, "--yes", *WHY))
    assert (receipt["observations"], receipt["asked"]["person"]) == (3, 7)
    assert "has no person 7" in failure("person", uri, 7, *WHY)
    assert "--person means all tracklets" in failure("erase", uri, "--person", 1, "--camera", "camera0", *WHY)
    assert "--id means one tracklet" in failure("erase", uri, "--person", 1, "--id", "camera0/e1/1", *WHY)


def test_times_for_a_camera_that_the_gallery_does_not_hold_are_warned_of_with_the_names_that_it_holds(uri, tmp_path):
    def said(*cameras):
        (tmp_path / "times.toml").write_text(f"[[transit]]\ncameras = {json.dumps(cameras)}\nshortest_s = 5\n")
        done = run_command("gallery", "identify", uri, "--transits", tmp_path / "times.toml")
        assert done.returncode == 0
        return " ".join(done.stderr.split())

    warned = said("camera0", "Camera1")
    assert "times are stated for Camera1, of which the gallery holds nothing" in warned
    assert "it holds camera0, camera1, camera2. Write the names so" in warned
    assert "times are stated" not in said("camera0", "camera1")


def test_times_between_cameras_are_read_from_a_file(uri, tmp_path):
    file = tmp_path / "times.toml"
    file.write_text('[[transit]]\ncameras = ["camera0", "camera1"]\nshortest_s = 86400\n')
    done = run_command("gallery", "identify", uri, "--transits", str(file))
    assert "matches between camera0 and camera1 are faster than the stated time" in " ".join(done.stderr.split())
    assert len(people(uri)) > 30
    file.write_text("[[transit]]\ncamera = 1\n")
    assert "SettingsError" in failure("identify", uri, "--transits", file)
