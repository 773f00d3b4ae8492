"""``reid-edge gallery tracklets``: a list of what is stored, as a table, CSV and JSON, accounted for in the audit."""

import contextlib
import csv
import datetime
import io
import json
import stat

import pytest

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
    file = tmp_path / "list.csv"
    gallery("tracklets", uri, "--camera", "door", "--since", "90m", "--csv", file, *WHY)
    assert [row["track"] for row in csv.DictReader(file.open())] == ["1"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "exists already" in failure("tracklets", uri, "--csv", file, *WHY)
    assert [one["id"] for one in json.loads(gallery("tracklets", uri, "--json", "--limit", 1, "--skip", 1, *WHY))] == [
        "door/abcdef0123456789/1"
    ]
    entries = json.loads(gallery("audit", uri, "--json"))
    assert [(entry["action"], entry["purpose"]) for entry in entries] == [("tracklets", "a test")] * 4
    assert [entry["detail"]["tracklets"] for entry in entries] == [3, 3, 1, 1]
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


def test_an_id_is_printed_whole_however_long_the_cameras_name_is(tmp_path, now):  # noqa: F811
    camera = "a" * 60
    with contextlib.closing(open_store(f"sqlite:{tmp_path / 'long.db'}")) as store:
        Collector(store).receive([batch([record(1, unit(512, seed=1), camera=camera, at=now - HOUR)], camera=camera)])
    assert f"{camera}/e1/1 " in gallery("tracklets", f"sqlite:{tmp_path / 'long.db'}", *WHY)


def test_a_list_of_nothing_says_so(uri):  # noqa: F811
    assert "nothing found" in gallery("tracklets", uri, "--camera", "nowhere", *WHY)
