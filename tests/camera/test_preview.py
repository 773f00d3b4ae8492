"""``reid-edge preview``: the page and the video, and that nothing else is written."""

import contextlib
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from reid_edge.camera.crop_selector import ChosenCrops
from reid_edge.camera.frames import Frame
from reid_edge.camera.pipeline import Pipeline
from reid_edge.camera.preview.recording import Limits, Recorder
from reid_edge.camera.preview.running import PreviewOptions, _Nobody, preview
from reid_edge.camera.preview.video import CODECS, AnnotatedVideo
from reid_edge.camera.review import Counts, suspicions
from reid_edge.camera.settings import parse_settings
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes
from reid_edge.camera.watcher import Watcher
from reid_edge.errors import OutputError
from reid_edge.settings import overridden
from tests.commands import failure, success

DATA = os.environ.get("REID_EDGE_DATA")
MASK = [[0.0, 0.0], [0.1, 0.0], [0.1, 0.1], [0.0, 0.1]]


@pytest.fixture
def settings(session_bundle, street, tmp_path):
    tables = {
        "source": {"uri": str(street)},
        "engine": {"bundle": str(session_bundle.path), "engine": "openvino", "precision": "fp32"},
        "filter": {"masks": [MASK]},
        "upstream": {"uri": "postgresql://ann:hush@192.0.2.1/gallery"},
        "operation": {"state_dir": str(tmp_path / "state"), "listen": ""},
    }
    return lambda changes=None: parse_settings(overridden(tables, changes or {}))


def test_the_page_shows_every_track_and_nothing_else_is_written(settings, tmp_path):
    out, video = tmp_path / "seen.html", tmp_path / "seen.avi"
    counts = preview(settings(), PreviewOptions(out, video))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seen.avi", "seen.html"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (out, video)} == {0o600}
    text = out.read_text()
    assert counts.frames == 60
    assert counts.published >= 3
    assert text.index("This page holds pictures of people") < text.index("What the camera saw")
    cards = re.findall(r'id="track-(\d+)">(.*?)</div>\n</div>', text, re.S)
    assert len(cards) >= 3
    assert all("data:image/jpeg;base64," in card for _, card in cards)
    assert text.count("published as tracklet") >= 3
    for shown in (
        "chosen: the first good one",
        "in the tracklet&#39;s feature",
        "1 mask, blacked out",
        "tracker.min_iou",
    ):
        assert shown in text, shown
    assert "hush" not in text
    assert not re.search(r"<script|https?://|src=\"(?!data:)", text)
    frames = cv2.VideoCapture(str(video))
    assert [frames.get(cv2.CAP_PROP_FRAME_COUNT), round(frames.get(cv2.CAP_PROP_FPS))] == [60, 20]


def test_a_preview_ends_after_its_seconds(settings, tmp_path):
    assert preview(settings(), PreviewOptions(tmp_path / "seen.html", seconds=1.0)).frames == 21


def test_outputs_that_exist_are_refused_before_any_work(settings, tmp_path):
    out = tmp_path / "seen.html"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        preview(settings(), PreviewOptions(out))
    assert out.read_text() == "mine"


def test_a_preview_that_fails_leaves_nothing(settings, tmp_path):
    (tmp_path / "boxes.py").write_text("")
    with pytest.raises(Exception, match="no_such_module"):
        preview(
            settings({"detector.kind": "callable", "detector.function": "no_such_module:find"}),
            PreviewOptions(tmp_path / "seen.html", tmp_path / "seen.mp4"),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.py"]


def test_a_codec_that_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(CODECS, ".avi", "ZZZZ")
    frame = Frame(np.zeros((64, 64, 3), np.uint8), 1_700_000_000_000_000, 0)
    with pytest.raises(OutputError, match="codec ZZZZ"), AnnotatedVideo(tmp_path / "seen.avi") as video:
        video.add(frame, frame.image)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match=r"ends in \.mp4"):
        AnnotatedVideo(tmp_path / "seen.gif")


def seen(recorder, number, tracks, *, chosen=True):
    boxes = np.tile(np.float32([10, 10, 50, 110]), (len(tracks), 1))
    scores = np.full(len(tracks), 0.9, np.float32)
    rows = np.arange(len(tracks) if chosen else 0, dtype=np.intp)
    image = np.random.default_rng(number).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    recorder.saw(
        Frame(image, 1_700_000_000_000_000 + number * 1_000_000, number),
        TrackedBoxes(boxes, scores, np.array(tracks, np.int64), ()),
        scores,
        ChosenCrops(rows, ("interval",) * len(rows), {}),
    )


def test_what_is_kept_of_a_long_video_is_bounded():
    recorder = Recorder(limits=Limits(tracks=3, chosen=4, left=2, crops=9))
    for number in range(50):
        seen(recorder, number, [number // 10, 100 + number], chosen=number % 2 == 0)
        recorder.ended(EndedTrack(100 + number, 0))
    assert len(recorder.tracks) == 3
    assert sum(len(track.crops) for track in recorder.tracks.values()) <= 9
    assert recorder.not_kept == 55 - 3
    assert len(recorder.more_tracks) <= 5
    assert max(track.shown(chosen=True) for track in recorder.tracks.values()) <= 4


@pytest.mark.parametrize("chosen", [4, 5, 37, 200])
def test_the_crops_that_are_shown_are_evenly_from_a_whole_long_track(chosen):
    recorder = Recorder(limits=Limits(chosen=4))
    for number in range(chosen):
        seen(recorder, number, [1])
    times = np.array([crop.captured_us - recorder.first_us for crop in recorder.tracks[1].crops]) / 1_000_000
    assert times[0] == 0
    assert 2 < len(times) <= 4
    assert len(set(np.diff(times))) == 1
    assert chosen - times[-1] <= np.diff(times)[0]


def test_a_track_that_is_withheld_says_why(settings, tmp_path):
    out = tmp_path / "seen.html"
    counts = preview(settings({"person.min_s": 60}), PreviewOptions(out))
    text = out.read_text()
    assert not counts.published
    assert counts.withheld["short"] >= 3
    assert "not published: the track is too short to tell whether it is a person (short)" in text
    assert "tracklets withheld, not like one whole person" in text
    assert re.search(r"no tracklet was published \(withheld: \d+ short", text)


def seen_by_the_watcher(settings, scores):
    """Run the pipeline over the street with boxes of these scores, and return rows of: score, reason, chosen."""
    rows = []

    class Noting(Watcher):
        def saw(self, _frame, tracked, _quality, chosen):
            for row, (track, score) in enumerate(zip(tracked.tracks.tolist(), tracked.scores.tolist(), strict=True)):
                rows.append((round(score, 1), chosen.left.get(track), row in chosen.rows.tolist()))

    SCORES[:] = scores
    table = {"detector.kind": "callable", "detector.function": "tests.camera.test_preview:find_two"}
    with contextlib.ExitStack() as closing:
        pipeline = Pipeline(settings(table), _Nobody(), closing, watcher=Noting())
        embedding = threading.Thread(target=pipeline.embedding.run)
        embedding.start()
        pipeline.detection.run()
        embedding.join()
    return rows, pipeline


SCORES = []


def find_two(frame):
    """Two people side by side, the first with a score that falls from the fifth frame on."""
    first, second = SCORES[min(frame.index // 5, len(SCORES) - 1)]
    return np.array([[20, 20, 60, 120, first], [200, 20, 240, 120, second]])


def test_weak_boxes_are_seen_and_give_no_crops(settings):
    rows, pipeline = seen_by_the_watcher(settings, [(0.9, 0.9), (0.4, 0.9)])
    weak = [row for row in rows if row[0] == 0.4]
    assert weak and not any(chosen for _, _, chosen in weak)
    assert {reason for _, reason, _ in weak} == {None}
    assert any(chosen for score, _, chosen in rows if score == 0.9)
    assert pipeline.tracklets.withheld == {"short": 1}


def counted(**changes):
    usual = {
        "frames": 100, "unreadable": 0, "off": 0, "detections": 300, "filtered": {}, "chosen": 20, "overload": 0,
        "embedded": 20, "split": 0, "withheld": {}, "passed": 8, "failed": 0, "unsuitable": False, "published": 8,
    }  # fmt: skip
    return Counts(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"detections": 0, "published": 0}, "Nobody was found"),
        ({"published": 0}, "no tracklet was published"),
        ({"published": 0, "withheld": {"short": 7, "cut_off": 2}}, r"no tracklet .* \(withheld: 7 short, 2 cut off\)"),
        ({"unsuitable": True, "failed": 20}, "Only 8 of 28 .* --detector person-detection-0202"),
        ({"unreadable": 60}, "could not be decoded"),
        ({"overload": 9}, "too slow"),
        ({"filtered": {"size": 900}}, r"900 boxes \(size\)"),
    ],
)
def test_what_looks_wrong_is_said(changes, said):
    (text,) = suspicions(counted(**changes))
    assert re.search(said, text)


def test_nothing_is_said_of_a_usual_run():
    assert suspicions(counted(filtered={"confidence": 9000, "overlap": 900})) == []


def test_the_command_says_that_it_shows_people(session_bundle, street, tmp_path):
    command = [sys.executable, "-m", "reid_edge", "preview"]
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [*command, str(session_bundle.path), "--source", str(street)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "holds pictures of people" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["preview.html"]
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 1
    assert "no source" in again.stderr


def test_any_setting_of_run_can_be_given(session_bundle, street, tmp_path):
    place = ["preview", session_bundle.path, "--source", street, "--out", tmp_path / "seen.html"]
    assert "min_hieght" in failure(*place, "--set", "filter.min_hieght=9")
    success(*place, "--set", "filter.min_height=4000")
    assert "boxes dropped by the filter" in (page := (tmp_path / "seen.html").read_text())
    assert re.search(r"filter\.min_height\D+4000", page)


@pytest.mark.slow
@pytest.mark.skipif(not DATA or not Path(DATA, "vtest.avi").exists(), reason="REID_EDGE_DATA holds no vtest.avi")
def test_a_real_street_is_shown(settings, tmp_path):
    out = tmp_path / "seen.html"
    counts = preview(settings({"source.uri": f"{DATA}/vtest.avi"}), PreviewOptions(out, seconds=20))
    assert counts.published >= 5
    assert out.read_text().count('class="card"') >= 5
    assert out.stat().st_size < 12_000_000


def test_run_shows_progress_and_names_preview_when_nobody_is_found(session_bundle, tmp_path):
    from tests.camera.street import write_street

    video = write_street(tmp_path / "empty.avi", frames=60, walkers=0)
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import reid_edge.console as console\n"
            "console.followed.__wrapped__.__kwdefaults__['every_s'] = 0.01\n"
            "from reid_edge.__main__ import main; main()",
            "run", session_bundle.path, "--source", video, "--state-dir", tmp_path / "state", "--listen", "",
            "--upstream", f"sqlite:{tmp_path}/gallery.db",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"empty\.avi: frame \d+ of 60", done.stderr)
    assert "warning: Nobody was found in 60 frames." in done.stdout
    assert f"reid-edge preview {session_bundle.path} --source {video}" in done.stdout
