"""``reid-edge run``: signals, exit codes, pages; as a process wherever the agent runs."""

import contextlib
import datetime
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from reid_edge.cli import app
from reid_edge.cli import camera as camera_command
from reid_edge.cli.file_positions import FilePositions
from reid_edge.errors import GalleryError
from reid_edge.gallery.store import open_store
from reid_edge.signing import SigningKey
from reid_edge.upstream.delivery.log import DeliveryStats
from reid_edge.upstream.outbox import Outbox
from tests.broker import free_port
from tests.camera.mjpeg import MjpegCamera
from tests.camera.test_agent import small_disk  # noqa: F401 - a fixture
from tests.commands import run_command
from tests.traffic import observation

COMMAND = [sys.executable, "-c", "from reid_edge.__main__ import main; main()", "run"]
PATIENCE_S = 60
NEXT_YEAR = f"{datetime.datetime.now(datetime.timezone.utc).year + 1}-06-01T00:00:00Z"
PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()


@pytest.fixture
def camera(session_bundle, street, tmp_path):
    """The options of a camera that plays the street in a loop, as a live one would."""
    settings = tmp_path / "camera.toml"
    settings.write_text(
        f"""
        [source]
        uri = "{street}"
        realtime = true
        loop = true
        [engine]
        bundle = "{session_bundle.path}"
        engine = "openvino"
        max_batch = 2
        [tracklet]
        early_s = 0.2
        [person]
        evidence_s = 0
        [upstream]
        uri = "sqlite:{tmp_path}/gallery.db"
        [operation]
        state_dir = "{tmp_path}/state"
        listen = "127.0.0.1:{free_port()}"
        """,
        encoding="utf-8",
    )
    return settings


@pytest.fixture
def run():
    """Runs the command in this process, for what ends before the agent runs; returns a function of its options."""
    return partial(run_command, "run")


@contextlib.contextmanager
def started(camera, *before, **options):
    command = [*before, *COMMAND, "--config", str(camera)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def page(camera, path):
    port = camera.read_text().split('listen = "127.0.0.1:')[1].split('"')[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def value(camera, name):
    """A number of /metrics; None before the agent serves it."""
    try:
        lines = page(camera, "/metrics").splitlines()
    except OSError:
        return None
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def wait_for(camera, name, least, process):
    deadline = time.monotonic() + PATIENCE_S
    while (value(camera, name) or 0) < least:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{name} stays below {least}"
        time.sleep(0.05)


def stored(tmp_path):
    store = open_store(f"sqlite:{tmp_path}/gallery.db", create=False)
    try:
        return sum(camera.observations for camera in store.cameras())
    finally:
        store.close()


def test_a_term_signal_ends_it_well_and_nothing_is_left_behind(camera, tmp_path):
    with started(camera) as process:
        wait_for(camera, "reid_edge_observations_published_total", 2, process)
        assert page(camera, "/healthz") == '{"status": "ok", "problems": [], "kinds": []}'
        process.send_signal(signal.SIGTERM)
        output, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    assert "features stored upstream" in output
    outbox = Outbox(tmp_path / "state/outbox.db")
    assert outbox.depth == 0
    outbox.close()
    assert stored(tmp_path) >= 2


def test_what_was_published_before_a_kill_arrives_after_the_next_start(camera, tmp_path):
    text = camera.read_text()
    camera.write_text(text.replace(f"sqlite:{tmp_path}/gallery.db", 'http://127.0.0.1:9"\ninsecure = true\n# "'))
    with started(camera) as process:
        wait_for(camera, "reid_edge_observations_published_total", 3, process)
        process.kill()
    camera.write_text(text)
    with started(camera) as process:
        wait_for(camera, "reid_edge_observations_acknowledged_total", 3, process)
    assert stored(tmp_path) >= 3


def test_a_hangup_signal_loads_the_bundle_again(camera):
    with started(camera) as process:
        wait_for(camera, "reid_edge_embeddings_total", 1, process)
        process.send_signal(signal.SIGHUP)
        wait_for(camera, "reid_edge_bundle_reloads_total", 1, process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_stream_has_stalled_ends_it_well(camera, number):
    stalled = MjpegCamera()
    text = camera.read_text().replace("realtime = true\n        loop = true", "read_timeout_s = 3")
    uri = text.split('uri = "')[1].split('"')[0]
    camera.write_text(text.replace(uri, stalled.url))
    try:
        with started(camera) as process:
            wait_for(camera, "reid_edge_frames_looked_at_total", 1, process)
            stalled.hangs.set()
            time.sleep(1.5)
            process.send_signal(number)
            _, log = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, log
        assert "terminate called" not in log
    finally:
        stalled.hangs.clear()
        stalled.kill()


@pytest.mark.slow
def test_a_signal_at_any_moment_of_the_start_ends_it(camera, tmp_path):
    chance = random.Random(20)
    for _ in range(6):
        number = chance.choice([signal.SIGTERM, signal.SIGINT])
        with started(camera) as process:
            time.sleep(chance.uniform(0.2, 4))
            process.send_signal(number)
            _, log = process.communicate(timeout=PATIENCE_S)
        # Before the command has begun, the signal ends Python itself.
        assert process.returncode in (0, -number), log
        assert "EngineUnavailableError" not in log
    if (tmp_path / "state/outbox.db").exists():
        Outbox(tmp_path / "state/outbox.db").close()


@pytest.mark.skipif(PATTERN.startswith("|") or "/" in PATTERN, reason="core dumps go elsewhere on this machine")
def test_an_agent_that_the_watchdog_aborts_leaves_no_picture_on_the_disk(camera, tmp_path):
    unlimited = ("sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh")
    with started(camera, *unlimited, cwd=tmp_path) as process:
        wait_for(camera, "reid_edge_frames_looked_at_total", 1, process)
        process.send_signal(signal.SIGABRT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGABRT
    assert not list(tmp_path.glob("core*"))


def test_a_full_disk_behind_standard_output_and_a_taken_port_do_not_stop_it(camera, tmp_path):
    text = camera.read_text().replace("realtime = true\n        loop = true", "")
    camera.write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as taken, Path("/dev/full").open("w") as full:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--config", camera, "--listen", f"127.0.0.1:{port}"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "until the port is free" in done.stderr and "Traceback" not in done.stderr
    assert stored(tmp_path) >= 2


@pytest.mark.parametrize(
    ("operation", "options", "any_port"),
    [
        ("", [], True),
        ("[operation]\nlog_level = 'debug'", [], True),
        ("[operation]\nlisten = '127.0.0.1:9465'", [], False),
        ("", ["--listen", "127.0.0.1:9465"], False),
        ("", ["--set", "operation.listen=127.0.0.1:9465"], False),
    ],
)
def test_an_agent_whose_address_nobody_has_set_takes_a_free_port(tmp_path, monkeypatch, operation, options, any_port):
    settings, taken = tmp_path / "camera.toml", []
    settings.write_text(f"[source]\nuri = 'a.mp4'\n[engine]\nbundle = 'b'\n{operation}\n", encoding="utf-8")
    monkeypatch.setattr(camera_command, "_run", lambda _, *, any_port, preview: taken.append(any_port))
    done = CliRunner().invoke(app, ["run", "--config", str(settings), *options], catch_exceptions=False)
    assert done.exit_code == 0 and taken == [any_port]


def test_the_preview_that_the_summary_names_sees_what_the_run_saw(tmp_path, monkeypatch):
    settings, named = tmp_path / "my camera.toml", []
    settings.write_text("", encoding="utf-8")
    monkeypatch.setattr(camera_command, "_run", lambda _, *, any_port, preview: named.append(preview))
    options = [
        "--config", str(settings), "--source", "my video.avi", "--detector", "person-detection-0202",
        "--set", "detector.size=[640, 640]", "--set", "upstream.uri=postgresql://me:secret@host/db",
    ]  # fmt: skip
    done = CliRunner().invoke(app, ["run", "my bundle", *options, "--camera", "door"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert named == [
        f"reid-edge preview 'my bundle' --config '{settings}' --source 'my video.avi' --detector person-detection-0202 "
        "--set 'detector.size=[640, 640]' --out preview.html"
    ]
    for given in (["--source", "rtsp://me:secret@10.0.0.9/1"], ["--set", "source.uri=rtsp://me:secret@10.0.0.9/1"]):
        CliRunner().invoke(app, ["run", "b", *given], catch_exceptions=False)
        assert "secret" not in named[-1] and "10.0.0.9" in named[-1]


def test_a_state_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(run, camera, tmp_path):
    (tmp_path / "file").touch()
    done = run("--config", camera, "--state-dir", tmp_path / "file" / "state")
    assert done.returncode == 1
    assert "operation.state_dir: the folder" in done.stderr and "install -d -m 0700" in done.stderr


def test_check_says_that_the_disk_takes_nothing(run, camera, small_disk):  # noqa: F811
    done = run("--config", camera, "--state-dir", small_disk, "--check")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "MB free" in said and "would wait in memory" in said
    assert "outbox: wrong. The details say" in done.stderr


def test_two_agents_do_not_share_an_outbox(run, camera):
    with started(camera) as process:
        wait_for(camera, "reid_edge_frames_total", 1, process)
        second = run("--config", camera, "--listen", "")
        assert second.returncode == 1
        assert "OutboxInUseError" in second.stderr
        assert process.poll() is None


def test_check_says_that_all_is_there_and_stores_nothing(run, camera, tmp_path):
    done = run("--config", camera, "--check")
    assert done.returncode == 0, done.stderr
    for subject in ("model", "detector", "source", "off switch", "outbox", "upstream", "metrics"):
        assert f"{subject} " in done.stdout
    assert done.stdout.count(" ok ") == 7
    assert not (tmp_path / "gallery.db").exists()
    assert not (tmp_path / "state").exists()


def test_check_says_that_rows_wait_for_another_gallery_and_how_to_move_them(run, camera, tmp_path):
    (tmp_path / "state").mkdir()
    with contextlib.closing(Outbox(tmp_path / "state" / "outbox.db", destination="north https://old:8443")) as outbox:
        outbox.put([observation(1)])
    done = run("--config", camera, "--state-dir", tmp_path / "state", "--check")
    said = "".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "1waitingobservationfornorthhttps://old:8443,andthisis" in said
    assert "reid-edgeoutboxmoveFILE--tosqlite:" in said
    assert [file.name for file in (tmp_path / "state").glob("outbox.*.db")] == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["no-such-bundle"],
        ["--detector", "no-such-model.onnx"],
        ["--detector", "motchallenge:no-such-file.txt"],
        ["--source", "no-such-video.avi"],
        ["--upstream", "sqlite:no-such-folder/gallery.db"],
        ["--upstream", "http://192.0.2.1", "--insecure"],
        ["--listen", "192.0.2.1:9600"],
    ],
    ids=" ".join,
)
def test_a_start_that_fails_leaves_neither_an_outbox_nor_a_gallery(run, camera, tmp_path, wrong):
    before = sorted(tmp_path.iterdir())
    done = run(*wrong[:1] * (not wrong[0].startswith("-")), "--config", camera, *wrong[wrong[0] == "no-such-bundle" :])
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_start_that_fails_leaves_the_outbox_that_was_there(run, camera, tmp_path):
    (tmp_path / "state").mkdir()
    with contextlib.closing(Outbox(tmp_path / "state" / "outbox.db")) as outbox:
        outbox.put([observation(1)])
    assert run("--config", camera, "--source", "no-such-video.avi").returncode == 1
    assert not (tmp_path / "gallery.db").exists()
    left = [Outbox(path) for path in (tmp_path / "state").glob("outbox*.db")]
    assert sum(outbox.depth for outbox in left) == 1
    for outbox in left:
        outbox.close()


def test_a_key_is_pinned_on_the_command_line(run, camera):
    key = SigningKey.generate().public.text
    done = run("--config", camera, "--trusted-key", key, "--check")
    assert done.returncode == 1
    assert "model: wrong. The details say" in done.stderr
    assert "sign" in done.stdout


def test_check_beside_a_running_agent_finds_only_its_port_taken(run, camera):
    with started(camera) as process:
        wait_for(camera, "reid_edge_frames_total", 1, process)
        done = run("--config", camera, "--check")
        assert done.returncode == 0
        assert "the agent goes on without, and tries again" in " ".join(done.stdout.split())
        assert "in use, an agent is running" in " ".join(done.stdout.split())
        assert run("--config", camera, "--listen", "", "--check").returncode == 0


def test_check_names_what_would_keep_it_from_starting(run, camera):
    done = run("--config", camera, "--source", "missing.avi", "--upstream", "http://example.org", "--check")
    assert done.returncode == 1
    assert "source, upstream: wrong. The details say" in done.stderr
    assert "missing.avi" in done.stdout


def test_check_tells_what_is_only_unreachable(run, camera, monkeypatch):
    monkeypatch.setattr("reid_edge.camera.check.ANSWER_S", 0.5)
    done = run("--config", camera, "--upstream", f"http://127.0.0.1:{free_port()}", "--insecure", "--check")
    assert done.returncode == 0
    assert " unreachable " in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no source: give --source VIDEO"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--detector", "motion:7"], "--detector: expected a name ('reid-edge detector list'), FILE.onnx, FILE.xml"),
        (["--detector", "person-detection-202"], "Did you mean person-detection-0202?"),
        (["--precision", "fp8"], "engine.precision"),
        (["--set", "tracker.lifespan_s=never"], "tracker.lifespan_s"),
        (["--set", "tracker.lifespan_s"], "--set: expected table.key=VALUE"),
        (["--listen", "0.0.0.0:1"], "operation.listen"),
        (["--upstream", "ftp://x"], "upstream.uri: expected the address of a gallery, one of mqtts:"),
        (["--upstream", "w.db"], "Did you mean sqlite:w.db?"),
        (["--upstream", "MQTTS://me:S3CRET@hub"], "got 'MQTTS://***@hub'. Did you mean mqtts://***@hub?"),
        (["--upstream", "http://127.0.0.1:9"], "--insecure"),
        (["--upstream", "mysql://me:S3CRET@db/reid"], "got 'mysql://***@db/reid'"),
        (["--camera", "gate north"], "camera.name: expected 1 to 64 letters"),
        (["--state-dir", "~nosuchuser/x"], "operation.state_dir: expected a path"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_begun(
    run, monkeypatch, options, message, session_bundle, street, tmp_path
):
    monkeypatch.chdir(tmp_path)
    given = [session_bundle.path, "--source", street, "--state-dir", tmp_path / "state"] if options else []
    done = run(*given, *options)
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "gallery.db").exists()


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ("person-detection-0202", "Fetch it first: reid-edge detector get person-detection-0202"),
        ("yolo11n.pt", "yolo export model=FILE.pt format=onnx"),
        ("models/no.onnx", "models/no.onnx does not exist"),
    ],
)
def test_a_detector_that_is_not_here_is_told_with_the_next_command(
    run, monkeypatch, detector, message, session_bundle, street, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nothing"))
    done = run(session_bundle.path, "--source", street, "--state-dir", tmp_path / "state", "--detector", detector)
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())


@pytest.fixture
def played(session_bundle, street, tmp_path):
    """Runs the command on the street's file; returns what it printed."""

    def played(*options):
        return subprocess.run(
            [*COMMAND, session_bundle.path, "--source", street, "--upstream", f"sqlite:{tmp_path}/gallery.db",
             "--state-dir", tmp_path / "state", "--engine", "openvino", *options],
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip

    return played


def test_a_file_older_than_the_retention_is_refused_until_the_store_keeps_it_and_a_second_run_is_told(
    played, tmp_path, street, monkeypatch
):
    old = played("--start", "5d", "--listen", "")
    assert old.returncode == 1
    assert "--retention-hours 145" in " ".join(old.stderr.split())
    with socket.create_server(("127.0.0.1", 9465)) if _is_free(9465) else contextlib.nullcontext():
        first = played("--start", "5d", "--retention-hours", "200")
    assert first.returncode == 0, first.stderr
    assert "first frame" in first.stdout and "was run for camera" not in first.stderr
    assert "9465 is taken" in first.stderr and "are served on port" in first.stderr
    assert stored(tmp_path) >= 1
    again = played("--start", "5d", "--listen", "")
    assert again.returncode == 0, again.stderr
    assert "was run for camera camera and this gallery before" in again.stderr
    elsewhere = played(
        "--start", "5d", "--listen", "", "--upstream", f"sqlite:{tmp_path}/other.db", "--retention-hours", "200"
    )
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert "was run for camera" not in elsewhere.stderr
    with contextlib.closing(open_store(f"sqlite:{tmp_path}/gallery.db")) as store, store.snapshot() as snapshot:
        entries = [record.entry for piece in snapshot.records() for record in piece]
    monkeypatch.setattr("reid_edge.cli.state_folders.ROOTS", (tmp_path,))
    positions = FilePositions(None)
    places = {(entry.incarnation, entry.track): positions.of(entry.tracklet, entry.first_us) for entry in entries}
    assert len(places) >= 2 and {place.file for place in places.values()} == {Path(street).name}
    seconds = [round(place.seconds, 3) for place in places.values()]
    assert {place.run for place in places.values()} == {1, 2}
    assert all(str(place).endswith(f"of {Path(street).name}, run {place.run}") for place in places.values())
    assert all(0 <= at < 30 and seconds.count(at) % 2 == 0 for at in seconds)  # the same people, in both runs


def test_a_file_all_of_which_is_refused_does_not_end_well(played, tmp_path):
    done = played("--set", f"source.start={NEXT_YEAR}", "--listen", "")
    assert done.returncode == 1
    assert "has refused all that was seen" in " ".join(done.stderr.split())
    assert stored(tmp_path) == 0


@pytest.mark.parametrize(
    ("newest", "last", "refused", "is_wrong"),
    [(0, 7, 2, True), (5, 7, 2, True), (6, 7, 1, False), (5, 5, 1, False), (5, 7, 0, False)],
    ids=["none stored", "older ones stored", "one stored", "none made", "none refused"],
)
def test_what_had_waited_and_is_stored_now_does_not_hide_that_this_run_was_refused(newest, last, refused, is_wrong):
    """Rows up to 5 are from before."""
    stats = DeliveryStats(acknowledged=newest, newest_acknowledged=newest, refused_waiting=refused)
    agent = SimpleNamespace(
        delivery=SimpleNamespace(stats=stats),
        outbox=SimpleNamespace(last_seq=last),
        pipeline=SimpleNamespace(source=SimpleNamespace(live=False)),
    )
    with pytest.raises(GalleryError, match="has refused all") if is_wrong else contextlib.nullcontext():
        camera_command._refuse_nothing_stored(agent, 5)


def _is_free(port):
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
