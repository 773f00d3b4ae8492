"""``reid-edge gallery`` on real files: called with its arguments in this process, and as a process of its own."""

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from unittest import mock

import cv2
import numpy as np
import pytest

from reid_edge.gallery.audit import current_user
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store
from reid_edge.upstream.message import decode_ack
from reid_edge.upstream.observation import Gap
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from tests.commands import run_command
from tests.conftest import random_crops
from tests.gallery.stores import HOUR, MODEL, OTHER_MODEL, SECOND, batch, record, unit

COMMAND = [sys.executable, "-c", "from reid_edge.__main__ import main; main()", "gallery"]
WHY = ("--purpose", "a test")


def call(*arguments):
    """Run the command here: exit code, standard output and standard error."""
    given = [os.fsdecode(each) if isinstance(each, bytes) else each for each in arguments]
    with mock.patch("reid_edge.logs.set_up_logs"):  # the logs are pytest's
        done = run_command("gallery", *given)
    return done.returncode, done.stdout, done.stderr


def run(*arguments):
    """Run the command as a person does."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def gallery(*arguments, code=0):
    result, output, errors = call(*arguments)
    assert result == code, output + errors
    return output if code == 0 else output + errors


def failure(*arguments):
    """The message of a command that must fail as reid-edge fails: exit 1, one message, no traceback."""
    return gallery(*arguments, code=1)


@pytest.fixture
def now():
    return time.time_ns() // 1000


@pytest.fixture
def uri(tmp_path, now):
    """Ann at the door an hour ago and in the yard half an hour ago, Bob at the door two hours ago."""
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    ann, bob = unit(512, seed=1), unit(512, seed=2)
    door = [
        record(1, ann, track=1, incarnation="abcdef0123456789", at=now - HOUR),
        record(2, bob, track=2, incarnation="abcdef0123456789", at=now - 2 * HOUR),
    ]
    store = open_store(uri)
    yard = [record(1, ann, track=1, camera="yard", at=now - HOUR // 2)]
    Collector(store).receive(
        [batch(door, incarnation="abcdef0123456789", gaps=[Gap(3, 9, 7, "full")]), batch(yard, camera="yard")]
    )
    store.close()
    return uri


def test_info_and_cameras_say_what_is_held(uri):
    shown = gallery("info", uri)
    for text in ("observations", "7 in 1 gap", "72 hours", f"{MODEL}, 512 numbers", "door", "yard"):
        assert text in shown
    facts = json.loads(gallery("info", uri, "--json"))
    assert (facts["observations"], facts["lost"], facts["retention_hours"]) == (3, 7, 72)
    assert [(one["camera"], one["observations"]) for one in facts["cameras"]] == [("door", 2), ("yard", 1)]
    assert json.loads(gallery("cameras", uri, "--json")) == facts["cameras"]
    assert "yard" in gallery("cameras", uri)
    assert "other" not in shown + gallery("cameras", uri)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--listen", "http://127.0.0.1:TAKEN", "--insecure"],
        ["--listen", "http://127.0.0.1:0", "--insecure", "--operations", "http://127.0.0.1:TAKEN"],
        ["--listen", "https://127.0.0.1:0", "--ca", "no.crt", "--cert", "no.crt", "--key", "no.key"],
        ["--mqtt", "mqtts://127.0.0.1", "--ca", "no.crt", "--cert", "no.crt", "--key", "no.key"],
        ["--mqtt", "mqtt://192.0.2.1", "--insecure"],
        ["--listen", "http://127.0.0.1:0", "--insecure", "--name", "a b"],
        ["--listen", "http://127.0.0.1:0", "--insecure", "--retention-hours", "-1"],
        ["--listen", "http://127.0.0.1:0", "--insecure", "--quota-rows", "-1"],
    ],
    ids=lambda wrong: " ".join(wrong),
)
def test_a_gallery_that_cannot_be_served_leaves_nothing_behind(tmp_path, wrong):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [word.replace("TAKEN", port) for word in wrong]
        done = subprocess.run(
            [sys.executable, "-m", "reid_edge", "gallery", "serve", f"sqlite:{tmp_path / 'x.db'}", *arguments],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_info_and_cameras_set_apart_what_was_sent_to_other_galleries(uri, now):
    with contextlib.closing(open_store(uri)) as store:
        sent = [record(seq, unit(512, seed=1), at=now - HOUR) for seq in range(1, 6)]
        Collector(store).receive([batch(sent, camera="yard", incarnation="e2", galleries=("north",))])
    shown = gallery("info", uri)
    assert "7 in 1 gap" in shown
    assert "5, not stored here" in shown
    facts = json.loads(gallery("info", uri, "--json"))
    assert (facts["gaps"], facts["lost"], facts["elsewhere"]) == (1, 7, 5)
    assert [(one["camera"], one["lost"], one["elsewhere"]) for one in facts["cameras"]] == [
        ("door", 7, 0),
        ("yard", 0, 5),
    ]
    assert "for others" in gallery("cameras", uri)


def test_a_search_by_id_finds_the_person_elsewhere_and_is_accounted_for(uri, now):
    shown = gallery("search", uri, "--id", "door/abc/1", "--top", 1, "--utc", *WHY)
    seen = time.strftime("%Y-%m-%d %H:%M:%S+00:00", time.gmtime((now - HOUR // 2) // SECOND))
    assert re.search(rf"1\.000 +1 +{re.escape(seen)} +1 s +yard/e1/1", shown)
    again = json.loads(gallery("search", uri, "--id", "yard/e1/1", "--other-cameras", "--json", *WHY))
    assert [one["id"] for one in again] == ["door/abcdef0123456789/1", "door/abcdef0123456789/2"]
    assert list(again[0]) == [
        *("id", "cosine", "mapped", "camera", "epoch", "seq"),
        *("model_hash", "track", "captured_us", "first_us", "last_us"),
        *("box", "confidence", "quality", "crops", "final", "verdict", "similarity", "false_match_rate"),
        *("false_match_limit", "miss_rate", "strangers_expected"),
    ]
    assert again[0]["verdict"] is None
    assert "reid-edge gallery calibrate sqlite:" in shown
    assert again[0]["cosine"] == pytest.approx(1, abs=1e-3)
    assert not any("feature" in field for field in again[0])
    old = json.loads(gallery("search", uri, "--id", "yard/e1/1", "--until", "90m", "--json", *WHY))
    assert [one["track"] for one in old] == [2]
    assert "nothing found" in gallery("search", uri, "--id", "yard/e1/1", "--same-camera", *WHY)
    entries = json.loads(gallery("audit", uri, "--json"))
    assert [(entry["action"], entry["purpose"]) for entry in entries] == [("search", "a test")] * 4
    assert entries[1]["detail"]["ids"] == ["door/abcdef0123456789/1", "door/abcdef0123456789/2"]
    assert "a test" in gallery("audit", uri, "--last", 1)


def test_erasing_shows_first_and_gives_a_receipt_then(uri, tmp_path):
    asked = ("erase", uri, "--camera", "door", "--since", "90m", *WHY)
    assert "1 observation would be erased" in failure(*asked)
    receipt = json.loads(gallery(*asked, "--yes"))
    assert (receipt["observations"], receipt["cameras"], receipt["leftovers"]) == (1, {"door": 1}, "none")
    assert unit(512, seed=1).astype("<f2").tobytes() in (tmp_path / "gallery.db").read_bytes()  # the yard's
    receipt = json.loads(gallery("erase", uri, "--id", "yard/e/1", "--yes", *WHY))
    assert receipt["asked"] == {"cameras": ["yard"], "epoch": "e1", "track": 1}
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert unit(512, seed=1).astype("<f2").tobytes() not in on_disk
    assert json.loads(gallery("info", uri, "--json"))["observations"] == 1


def test_an_erasure_of_nothing_says_so_and_names_the_cameras_that_are_held(uri):
    asked = ("erase", uri, "--camera", "dor", "--yes", *WHY)
    code, output, errors = call(*asked)
    assert code == 0
    assert json.loads(output)["observations"] == 0
    assert "nothing was erased" in errors
    assert "door, yard" in errors


def test_a_process_of_its_own_prints_and_ends_as_a_call_does(uri):
    for arguments in (
        ["search", uri, "--id", "yard/e1/1", "--json", *WHY],
        ["erase", uri, "--camera", "dor", "--yes", *WHY],
        ["search", uri, "--id", "yard/e1/1", "--purpose", b"\xff"],
    ):
        expected = call(*arguments)
        got = run(*arguments)
        assert got[0] == expected[0]
        if "erase" not in arguments:  # a receipt holds its time
            assert got[1:] == expected[1:]
        assert bool(got[1]) == (got[0] == 0)
        assert bool(got[2]) == (got[0] == 1 or "erase" in arguments)


def test_ids_in_the_table_of_a_search_can_be_copied(tmp_path, now):
    """On one line each, whatever the terminal, and so that --id takes them."""
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    camera, incarnation = "gate-north-" + "x" * 53, "3d5a6eff64636442"
    store = open_store(uri)
    rows = [
        record(seq, unit(512, seed=1), camera=camera, incarnation=incarnation, at=now - HOUR) for seq in (2298, 2299)
    ]
    Collector(store).receive([batch(rows, camera=camera, incarnation=incarnation)])
    store.close()
    shown = gallery("search", uri, "--id", f"{camera}/3d5a/2299", *WHY)
    assert f"{camera}/3d5a6eff/2298" in shown
    gallery("search", uri, "--id", f"{camera}/3d5a6eff/2298", *WHY)


def test_retention_is_changed_applied_and_accounted_for(uri):
    assert "0 observations" in gallery("expire", uri)
    assert "1 observation last seen more than 1.5 hours ago deleted" in gallery("expire", uri, "--retention-hours", 1.5)
    assert json.loads(gallery("info", uri, "--json"))["retention_hours"] == 1.5
    changed, expired = json.loads(gallery("audit", uri, "--json"))
    assert (changed["action"], changed["detail"]) == ("retention", {"hours": 1.5, "before": 72.0})
    assert (expired["action"], expired["user"]) == ("expire", current_user())
    before_us = expired["detail"].pop("before_us")
    assert before_us == pytest.approx(expired["at_us"] - int(1.5 * HOUR), abs=10 * SECOND)
    assert expired["detail"] == {"observations": 1, "gaps": 0, "retention_hours": 1.5}


def test_a_clock_that_is_ahead_deletes_nothing_until_a_person_says_that_it_is_right(tmp_path, now, monkeypatch):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    store = open_store(uri)
    Collector(store).receive([batch([record(seq, at=now - HOUR) for seq in range(1, 51)])])
    store.close()
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + 4 * 24 * HOUR * 1000)
    code, output, errors = call("expire", uri)
    assert (code, "0 observations last seen" in output) == (1, True)
    assert "96 hours ahead" in errors
    assert "--clock-is-right" in errors
    assert json.loads(gallery("audit", uri, "--json")) == []
    assert "50 observations last seen" in gallery("expire", uri, "--clock-is-right")
    said, expired = json.loads(gallery("audit", uri, "--json"))
    assert (said["action"], expired["action"], expired["detail"]["observations"]) == ("clock", "expire", 50)


def test_the_audit_is_verified_and_its_end_too_with_a_hash_kept_elsewhere(uri, tmp_path):
    for digit in "123":
        gallery("accept-model", uri, digit * 64)
    report = json.loads(gallery("audit", uri, "--verify", "--json"))
    assert (report["lines"], report["faults"]) == (3, [])
    assert report["head"] in gallery("audit", uri, "--verify")
    gallery("accept-model", uri, "4" * 64)
    assert "4 lines, whole" in gallery("audit", uri, "--expect", report["head"])
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db:
        db.execute("DROP TRIGGER audit_keeps_everything")
        db.execute("DELETE FROM audit WHERE number > 2")
        db.commit()
    assert "2 lines, whole" in gallery("audit", uri, "--verify")
    code, output, errors = call("audit", uri, "--expect", report["head"])
    assert (code, "BROKEN" in output) == (1, True)
    assert "lines at the end were removed" in errors


def test_a_backup_is_made_checked_and_restored_by_commands(uri, tmp_path):
    backup, new = tmp_path / "b.db", f"sqlite:{tmp_path / 'new.db'}"
    assert "3 observations" in gallery("backup", uri, backup)
    assert "--force" in call("backup", uri, backup)[2]
    assert "nothing is damaged" in gallery("check", uri)
    gallery("erase", uri, "--camera", "yard", "--yes", *WHY)
    (tmp_path / "kept").write_text(gallery("erasures", uri))
    shown = gallery("restore", backup, new, "--erasures", tmp_path / "kept")
    assert "2 observations restored" in shown
    assert "1 left out" in shown
    assert json.loads(gallery("cameras", new, "--json"))[0]["camera"] == "door"
    assert "sets it aside" in call("restore", backup, new)[2]
    assert ".replaced-" in gallery("restore", backup, new, "--force")
    with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as db:
        db.execute("UPDATE observations SET track = track + 1")
        db.commit()
    code, _, errors = call("check", new)
    assert (code, "2 damaged observations left out" in errors) == (1, True)
    assert "2 damaged observations left out" in json.loads(gallery("info", new, "--json"))["damage"]


def test_what_is_older_than_the_retention_is_shown_by_no_command_though_it_is_there(uri):
    store = open_store(uri)
    store.set_retention_hours(0.75)  # nobody has deleted yet
    assert store.span(Selection()).observations == 3
    store.close()
    assert json.loads(gallery("info", uri, "--json"))["observations"] == 1
    assert [one["camera"] for one in json.loads(gallery("cameras", uri, "--json")) if one["observations"]] == ["yard"]
    assert "has expired" in call("search", uri, "--id", "door/abc/1", *WHY)[2]
    assert json.loads(gallery("search", uri, "--id", "yard/e1/1", "--json", *WHY)) == []


def test_the_roles_are_printed_as_sql():
    assert "CREATE ROLE reid_edge_searcher NOLOGIN" in gallery("roles")


def test_a_model_is_accepted_by_its_hash(uri):
    assert OTHER_MODEL in gallery("accept-model", uri, OTHER_MODEL)
    assert [one["model_hash"] for one in json.loads(gallery("info", uri, "--json"))["models"]] == [MODEL, OTHER_MODEL]
    assert json.loads(gallery("audit", uri, "--json"))[0]["action"] == "accept-model"


def test_names_of_cameras_become_pseudonyms_with_the_key(tmp_path, now):
    key = tmp_path / "key"
    name = camera_pseudonym("door", load_or_create_key(key))
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    store = open_store(uri)
    rows = [record(seq, unit(512, seed=1), camera=name, at=now - HOUR) for seq in (1, 2)]
    Collector(store).receive([batch(rows, camera=name)])
    store.close()
    arguments = ("search", uri, "--id", "door/e1/1", "--camera", "door", "--json", *WHY)
    (found,) = json.loads(gallery(*arguments, "--pseudonym-key", key))
    assert found["camera"] == name
    assert "holds nothing" in failure(*arguments)
    assert "no key at" in failure(*arguments, "--pseudonym-key", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    receipt = json.loads(gallery("erase", uri, "--camera", "door", "--pseudonym-key", key, "--yes", *WHY))
    assert receipt["cameras"] == {name: 2}


def test_serve_takes_batches_and_ends_when_told(tmp_path, now):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    serve = [*COMMAND, "serve", uri, "--listen", "http://127.0.0.1:0", "--insecure", "--retention-hours", "5"]
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = re.search(r"http://127\.0\.0\.1:(\d+)$", process.stdout.readline().rstrip())[1]
        rows = [record(1, at=now - HOUR), record(2, at=now - 6 * HOUR)]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/batches", batch(rows), {"content-type": "application/x-protobuf"}
        )
        ack = decode_ack(urllib.request.urlopen(request, timeout=30).read())
        assert ack.seqs == (1,)
        assert "5 hours" in ack.refused[0].reason
        health = urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30)
        assert health.read() == b"ok\n"
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, output + errors
    assert f'"listening on http://127.0.0.1:{port}"' in errors
    assert "uvicorn" not in errors
    assert "color_message" not in errors
    store = open_store(uri, create=False)
    assert store.span(Selection()).observations == 1
    assert store.retention_hours() == 5
    store.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "sqlite:none.db"], "there is no gallery"),
        (["info", "none.db"], "Did you mean sqlite:none.db"),
        (["serve", "sqlite:none.db"], "--listen"),
        (["serve", "sqlite:none.db", "--listen", "http://127.0.0.1:0"], "--insecure"),
        (["serve", "sqlite:none.db", "--mqtt", "mqtts://localhost", "--ca", "ca.pem"], "--ca, --cert and --key"),
        (["search", "URI", *WHY], "--image FILE and --bundle FOLDER, or --id ID"),
        (["search", "URI", "--id", "yard/e1/1", "--image", "a.png", *WHY], "or --id ID"),
        (["search", "URI", "--id", "yard", *WHY], "camera/epoch/number"),
        (["search", "URI", "--id", "yard/e1/2", *WHY], "holds nothing under"),
        (["search", "URI", "--id", "yard/e1/1", "--purpose", " "], "--purpose"),
        (["search", "URI", "--id", "yard/e1/1", "--since", "1h", "--until", "2h", *WHY], "is later than"),
        (["search", "URI", "--id", "yard/e1/1", "--since", "soon", *WHY], "expected a time like"),
        (["search", "URI", "--id", "yard/e1/1", "--same-camera", "--other-cameras", *WHY], "not both"),
        (["search", "URI", "--image", "a.png", "--bundle", "none", *WHY], "not a bundle"),
        (["erase", "URI", "--yes", *WHY], "say what to erase"),
        (["erase", "URI", "--track", "1", "--yes", *WHY], "needs one --camera"),
        (["erase", "URI", "--id", "yard/e1/1", "--camera", "yard", "--yes", *WHY], "--id means one tracklet"),
        (["search", "URI", "--id", "yard/e1/1", "--purpose", b"\xff"], "printable"),
        (["search", "URI", "--id", "yard/e1/1", "--camera", b"\xff", *WHY], "letters, digits"),
        (["search", "URI", "--id", "yard/e1/99999999999999999999", *WHY], "camera/epoch/number"),
        (["erase", "URI", "--camera", "yard", "--epoch", "a b", "--yes", *WHY], "letters, digits"),
        (["expire", "URI", "--retention-hours", "nan"], "--retention-hours"),
        (["expire", "URI", "--retention-hours", "0"], "--retention-hours"),
        (["expire", "URI", "--retention-hours", "1e9"], "--retention-hours"),
        (["accept-model", "URI", "ABC"], "64 hexadecimal digits"),
    ],
)
def test_bad_input_gives_one_message_and_changes_nothing(monkeypatch, tmp_path, uri, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in failure(*(uri if argument == "URI" else argument for argument in arguments))
    store = open_store(uri)
    assert store.span(Selection()).observations == 3
    assert store.audit_entries(5) == []
    store.close()
    assert {path.name for path in tmp_path.iterdir()} <= {
        f"{name}{end}" for name in ("gallery.db", "none.db") for end in ("", ".mark")
    }


def test_an_image_finds_the_person_through_the_bundle(session_bundle, tmp_path, now, uri):
    from reid_edge.runtime import Extractor

    people = random_crops(np.random.default_rng(3), 4)
    model = session_bundle.manifest.model_hash
    features = Extractor(session_bundle.path)(people)
    own = f"sqlite:{tmp_path / 'own.db'}"
    store = open_store(own)
    rows = [record(seq + 1, features[seq], model=model, at=now - HOUR) for seq in range(4)]
    Collector(store).receive([batch(rows)])
    store.close()
    frame = np.zeros((700, 900, 3), np.uint8)
    height, width = people[2].shape[:2]
    frame[40 : 40 + height, 60 : 60 + width] = people[2]
    cv2.imwrite(str(tmp_path / "crop.png"), people[2])
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    whole = ("--image", tmp_path / "crop.png")
    boxed = ("--image", tmp_path / "frame.png", "--box", f"60,40,{60 + width},{40 + height}")
    common = ("--bundle", session_bundle.path, "--json", *WHY)
    for query in (whole, boxed):
        found = json.loads(gallery("search", own, *query, *common))
        assert found[0]["track"] == 3
        assert found[0]["cosine"] > 0.999
    digest = json.loads(gallery("audit", own, "--json"))[0]["detail"]["query"]["image_sha256"]
    assert digest == subprocess.run(["sha256sum", tmp_path / "crop.png"], capture_output=True, text=True).stdout[:64]
    assert "x1,y1,x2,y2" in failure("search", own, "--image", tmp_path / "frame.png", "--box", "1,2,3", *common)
    framed = ("search", own, "--image", tmp_path / "frame.png", *common, "--box")
    assert "not fractions: --box 90,70,450,350" in failure(*framed, "0.1,0.1,0.5,0.5")
    assert "x1 < x2" in failure(*framed, "200,200,60,128")
    assert "outside the 900x700 picture" in failure(*framed, "900,0,950,200")
    start = f"{(now - HOUR) // 1_000_000 - 30}"
    since = datetime.datetime.fromtimestamp(int(start), datetime.timezone.utc).isoformat()
    found = json.loads(gallery("search", own, *whole, *common, "--file-start", since))
    assert found[0]["position_s"] == pytest.approx((found[0]["first_us"] - int(start) * 1_000_000) / 1e6)
    shown = gallery("search", own, *whole, *common[:2], *WHY, "--file-start", since)
    assert "in the file" in shown and "It is not a probability" in shown
    assert "not a readable image" in failure("search", own, "--image", tmp_path / "own.db", *common)
    assert "there is no such file" in failure("search", own, "--image", tmp_path / "none.png", *common)
    # A gallery of another model is not searched; that shows before the image is even looked at.
    assert "ModelMismatchError" in failure("search", uri, "--image", tmp_path / "none.png", *common)
