"""The whole agent: a real video, a real engine, a real outbox and gallery."""

import contextlib
import datetime
import functools
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.bundle import MANIFEST
from reid_edge.camera.agent import Agent
from reid_edge.camera.check import examine
from reid_edge.camera.detection_stage import compact_copy
from reid_edge.camera.embedding_stage import load_model
from reid_edge.camera.frames import Frame
from reid_edge.camera.settings import parse_settings
from reid_edge.camera.sources import open_source
from reid_edge.camera.status import AgentMetrics
from reid_edge.crops import crop_boxes
from reid_edge.errors import BundleCorruptError, BundleUntrustedError, SourceError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.http import HttpServer, gallery_app
from reid_edge.gallery.store import open_store
from reid_edge.runtime import Extractor
from reid_edge.settings import overridden
from reid_edge.signing import SIGNATURE, SigningKey
from reid_edge.upstream.outbox import Outbox
from tests.broker import free_port
from tests.camera.bundles import renamed_bundle, resized_bundle
from tests.camera.street import STILL, street_frames
from tests.traffic import observation

PATIENCE_S = 60
#: Young enough for a gallery that keeps features for 72 hours, whenever the tests run.
START = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) - datetime.timedelta(hours=1)


@pytest.fixture(scope="module")
def small_bundle(session_bundle, tmp_path_factory):
    """Half the height and width of the session's bundle."""
    return resized_bundle(session_bundle, tmp_path_factory.mktemp("bundles") / "small", (128, 64))


loaded_once = functools.cache(load_model)


@pytest.fixture(autouse=True)
def session_bundle_is_loaded_once(session_bundle, monkeypatch):
    """The session's bundle, given by its own path, is loaded, checked and warmed up once for all agents."""

    def load(settings):
        return (loaded_once if settings.bundle == session_bundle.path else load_model)(settings)

    monkeypatch.setattr("reid_edge.camera.agent.load_model", load)
    monkeypatch.setattr("reid_edge.camera.pipeline.load_model", load)


@pytest.fixture
def settings(session_bundle, street, tmp_path):
    """Settings of a camera whose gallery is a file; give changes as ``section.key`` values."""
    tables = {
        "source": {"uri": str(street)},
        "engine": {"bundle": str(session_bundle.path), "engine": "openvino", "precision": "fp32"},
        "upstream": {"uri": f"sqlite:{tmp_path}/gallery.db"},
        "operation": {"state_dir": str(tmp_path / "state"), "listen": ""},
    }
    return lambda changes=None: parse_settings(overridden(tables, changes or {}))


@contextlib.contextmanager
def opened(config):
    agent = Agent(config)
    try:
        yield agent
    finally:
        agent.close()


@contextlib.contextmanager
def running(config):
    """An agent that runs in a thread, and is stopped in the end."""
    with opened(config) as agent:
        failures = []

        def run():
            try:
                agent.run()
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield agent
        finally:
            agent.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            assert not failures


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def stored(config):
    """Everything in the gallery, of whatever model."""
    anything = np.full(512, 512**-0.5, np.float32)
    store = open_store(config.upstream.uri)
    try:
        hashes = [model.model_hash for model in store.models()]
        found = [store.search(anything, model_hash=one, selection=Selection(), top=10_000) for one in hashes]
        return [match.entry for matches in found for match in matches]
    finally:
        store.close()


def metric(agent, name, **labels):
    """One number of what Prometheus would be told."""
    for family in AgentMetrics(agent).collect():
        for sample in family.samples:
            if sample.name == name and sample.labels.items() >= labels.items():
                return sample.value
    raise AssertionError(f"no {name} {labels}")


def kinds(agent):
    """The kinds of problem that the agent has."""
    return {problem.kind for problem in agent.health().problems}


def test_people_of_a_video_arrive_in_the_gallery(settings, session_bundle):
    config = settings({"camera.name": "north"})
    with opened(config) as agent:
        agent.run()
    entries = stored(config)
    assert agent.pipeline.detection.stats.frames == 60
    assert len(entries) == agent.publisher.stats.published == agent.delivery.stats.acknowledged
    assert agent.outbox.depth == 0
    assert {entry.camera for entry in entries} == {"north"}
    assert {entry.model_hash for entry in entries} == {session_bundle.manifest.model_hash}
    finals = [entry for entry in entries if entry.final]
    assert len({entry.track for entry in finals}) == len(finals) >= 3  # three walk, each seen once or more


def test_tracks_have_the_walkers_boxes(settings):
    config = settings({"detector.kind": "callable", "detector.function": "tests.camera.test_agent:see_walkers"})
    with opened(config) as agent:
        agent.run()
    finals = sorted((entry.box for entry in stored(config) if entry.final), key=lambda box: box[1])
    assert len(finals) == 3
    for seed, (_, top, _, bottom) in enumerate(finals):
        assert top == pytest.approx((5 + seed * 118) / 360, abs=0.02)
        assert bottom == pytest.approx((115 + seed * 118) / 360, abs=0.02)


def see_walkers(frame):
    """Where the walkers are, as drawn; no one crosses the frame within 60 frames but the third."""
    if frame.index < STILL:
        return np.empty((0, 5))
    boxes = []
    for seed in range(3):
        x = (frame.index - STILL) * (3 + seed)
        boxes.append([x, 5 + seed * 118, x + 44, 115 + seed * 118, 0.9])
    return np.array(boxes, float)


def test_a_feature_of_the_gallery_is_that_of_the_walker(settings, session_bundle):
    config = settings({"detector.kind": "callable", "detector.function": "tests.camera.test_agent:see_walkers"})
    with opened(config) as agent:
        agent.run()
    frame = street_frames(31)[30]
    extractor = Extractor(session_bundle, engine="openvino", precision="fp32")
    boxes = see_walkers(type("At", (), {"index": 30}))[:, :4]
    store = open_store(config.upstream.uri)
    try:
        for seed, feature in enumerate(extractor(frame, boxes)):
            best = store.search(feature, model_hash=session_bundle.manifest.model_hash, selection=Selection(), top=1)[0]
            assert best.entry.box[1] == pytest.approx((5 + seed * 118) / 360, abs=0.02)
            assert best.cosine > 0.9
    finally:
        store.close()


def test_a_second_run_goes_on_with_other_track_numbers(settings):
    config = settings()
    for _ in range(2):
        with opened(config) as agent:
            agent.run()
    finals = [entry.tracklet for entry in stored(config) if entry.final]
    assert len(set(finals)) == len(finals)
    assert len({entry.incarnation for entry in stored(config)}) == 1


def test_while_the_gallery_is_unreachable_features_wait_and_a_later_run_delivers_them(settings, tmp_path):
    uri = f"http://127.0.0.1:{free_port()}"
    remote = {"upstream.uri": uri, "upstream.insecure": True}
    with opened(settings({**remote, "operation.drain_s": 0.1})) as agent:
        agent.run()
        waiting = agent.outbox.depth
    assert waiting == agent.publisher.stats.published > 0
    elsewhere = settings({"filter.confidence": 1.0})  # sees nobody: only delivers
    with opened(elsewhere) as agent:
        agent.run()
    assert not stored(elsewhere)  # they were not for that gallery
    store = open_store(f"sqlite:{tmp_path}/remote.db", create=True)
    server = HttpServer(gallery_app(Collector(store), metrics=lambda: (b"", "text/plain")), uri, insecure=True)
    try:
        with opened(settings({**remote, "filter.confidence": 1.0, "operation.drain_s": PATIENCE_S})) as agent:
            agent.run()
            assert (agent.delivery.stats.acknowledged, agent.outbox.depth) == (waiting, 0)
    finally:
        server.close()
        store.close()


def test_a_database_that_is_unreachable_at_the_start_does_not_stop_detection(settings):
    unreachable = settings({"upstream.uri": "postgresql://me@127.0.0.1:1/reid", "operation.drain_s": 0})
    with opened(unreachable) as agent:
        agent.run()
        assert agent.outbox.depth == agent.publisher.stats.published > 0


def see_one_large(frame):
    """One person who does not move, larger than any input of a network here."""
    return np.array([[20, 4, 170, 356, 0.9]])


LARGE = {
    "person.min_boxes": 1,
    "person.min_s": 0,
    "detector.kind": "callable",
    "detector.function": "tests.camera.test_agent:see_one_large",
}


def test_large_crops_wait_no_larger_than_the_network_takes_them(settings, session_bundle):
    with opened(settings()) as agent:
        input_size = session_bundle.manifest.input.size
        large = np.random.default_rng(0).integers(0, 256, (1000, 430, 3), dtype=np.uint8)
        kept = compact_copy(large, input_size)
        assert kept.shape == (*input_size, 3)
        extractor = agent.pipeline.embedding.extractor
        np.testing.assert_array_equal(extractor([kept]), extractor([large]))
        small = large[:40, :20]
        np.testing.assert_array_equal(compact_copy(small, input_size), small)
        assert compact_copy(small, input_size).base is None


@pytest.mark.parametrize("direction", ["smaller", "larger"])
def test_a_bundle_of_another_input_size_gets_crops_of_its_own_size(
    settings, small_bundle, session_bundle, direction, tmp_path
):
    """Crops that wait at the change are embedded by the model that they were cut for."""
    before, after = (session_bundle, small_bundle)[:: 1 if direction == "smaller" else -1]
    link = tmp_path / "bundle"
    link.symlink_to(before.path)
    config = settings({**LARGE, "engine.bundle": str(link), "engine.max_batch": 1, "gate.mode": "every"})
    frame, published = Frame(street_frames(1)[0], 0, 0), []
    with opened(config) as agent:
        agent.publisher.publish = published.extend
        agent.pipeline.detection._process(frame)
        link.unlink()
        link.symlink_to(after.path)
        agent._reload()
        agent.pipeline.detection._process(replace(frame, captured_us=100_000, index=1))
        agent.pipeline.crop_queue.finish()
        agent.pipeline.embedding.run()
        pixels = [crop_boxes(frame.image, see_one_large(frame)[:, :4])[0][0]]
        expected = {
            one.manifest.model_hash: Extractor(one, engine="openvino", max_batch=1)(pixels)[0]
            for one in (before, after)
        }
    assert agent.reloads == 1
    assert [seen.model_hash for seen in published] == [before.manifest.model_hash, after.manifest.model_hash]
    for seen in published:
        np.testing.assert_allclose(seen.feature, expected[seen.model_hash], atol=1e-5)


@pytest.mark.parametrize("correction_us", [-31_536_000_000_000, 3_600_000_000], ids=["back", "forward"])
def test_tracks_are_cut_where_the_clock_is_set_and_those_that_are_open_get_the_right_times(settings, correction_us):
    config = settings({**LARGE, "gate.mode": "every", "tracker.lifespan_s": 3600})
    start_us, published = time.time_ns() // 1000, []
    frames = [Frame(street_frames(1)[0], start_us + index * 100_000, index) for index in range(10)]
    right_us = [frame.captured_us + correction_us for frame in frames]
    frames[5:] = [
        replace(frame, captured_us=frame.captured_us + correction_us, correction_us=correction_us)
        for frame in frames[5:]
    ]
    with opened(config) as agent:
        agent.publisher.publish = published.extend
        for frame in frames:
            agent.pipeline.detection._process(frame)
        agent.pipeline.crop_queue.put([], agent.pipeline.detection._tracker.finish())
        agent.pipeline.crop_queue.finish()
        agent.pipeline.embedding.run()
    before, after = published
    assert before.track != after.track and before.final and after.final
    assert (before.first_us, before.last_us) == (right_us[0], right_us[4])
    assert (after.first_us, after.last_us) == (right_us[5], right_us[9])
    for seen in published:
        assert seen.first_us <= seen.captured_us <= seen.last_us


def test_a_live_source_that_is_too_fast_loses_the_oldest_crops_counted_and_stays_bounded(settings):
    config = settings(
        {
            "source.realtime": True,
            "source.loop": True,
            "gate.mode": "every",
            "pipeline.max_waiting_crops": 4,
            "engine.max_batch": 1,
            "detector.kind": "callable",
            "detector.function": "tests.camera.test_agent:see_a_crowd",
        }
    )
    with running(config) as agent:
        wait_until(lambda: agent.pipeline.crop_queue.dropped > 50)
        assert len(agent.pipeline.crop_queue) <= 4
        assert metric(agent, "reid_edge_crops_dropped_total", reason="overload") > 50
    assert (
        agent.pipeline.detection.stats.chosen
        == agent.pipeline.embedding.stats.embedded + agent.pipeline.crop_queue.dropped
    )


def see_a_crowd(frame):
    """Forty people who do not move: more than any engine here embeds in the time of a frame."""
    left, top = np.meshgrid(np.arange(8) * 55.0, np.arange(5) * 70.0)
    corners = np.stack([left.ravel(), top.ravel()], 1)
    return np.hstack([corners, corners + np.array([50, 65]), np.full((40, 1), 0.9)])


def test_a_file_loses_nothing_however_slow_the_engine(settings):
    config = settings({"gate.mode": "every", "pipeline.max_waiting_crops": 1, "engine.max_batch": 1})
    with opened(config) as agent:
        agent.run()
    assert agent.pipeline.crop_queue.dropped == 0
    assert agent.pipeline.detection.stats.frames == 60
    assert agent.pipeline.detection.stats.chosen == agent.pipeline.embedding.stats.embedded > 0


def test_observations_wait_in_memory_while_the_disk_is_full(settings):
    unreachable = {"upstream.uri": "http://127.0.0.1:9", "upstream.insecure": True, "operation.drain_s": 0}
    often = {"gate.mode": "every", "tracklet.early_s": 0.2, "tracklet.every_s": 0.2, "person.evidence_s": 0.0}
    config = settings({"source.realtime": True, "source.loop": True, **often, **unreachable})
    with running(config) as agent:
        wait_until(lambda: agent.publisher.stats.published > 0)
        with full_disk(agent.outbox):
            wait_until(lambda: agent.publisher.stats.unwritten >= 3)
            wait_until(lambda: "outbox" in kinds(agent))
        wait_until(lambda: agent.publisher.stats.unwritten == 0)
        wait_until(lambda: not kinds(agent))
    assert agent.publisher.stats.lost == 0
    assert agent.outbox.depth == agent.publisher.stats.published


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 3 MB: needs root to mount, as CI has."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no right to mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("kind", ["full", "read-only"])
@pytest.mark.parametrize("rows_wait", [True, False])
def test_it_starts_on_a_disk_that_takes_nothing_and_delivers_all_once_it_does(
    settings, session_bundle, small_disk, kind, rows_wait, caplog
):
    live = {"source.realtime": True, "source.loop": True, "gate.mode": "every", "tracklet.early_s": 0.2}
    live["person.evidence_s"] = 0.0  # publish at once, though nobody was seen before
    config = settings({"operation.state_dir": str(small_disk), **live})
    if rows_wait:
        with contextlib.closing(Outbox(small_disk / "outbox.db")) as outbox:
            outbox.put([replace(observation(1), model_hash=session_bundle.manifest.model_hash)])
    ballast = small_disk / "ballast"
    if kind == "full":
        fill(ballast)
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with running(config) as agent:
        wait_until(lambda: "outbox" in kinds(agent))
        wait_until(lambda: agent.publisher.stats.unwritten >= 2)
        assert "wait in memory" in caplog.text
        if kind == "full":
            ballast.unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        wait_until(lambda: agent.publisher.stats.unwritten == 0 and agent.publisher.stats.published >= 2)
        wait_until(lambda: "outbox" not in kinds(agent))
    stats = agent.publisher.stats
    assert (stats.lost, agent.outbox.depth) == (0, 0)
    assert agent.delivery.stats.acknowledged == stats.published + rows_wait


@contextlib.contextmanager
def full_disk(outbox):
    """SQLite may not make the outbox's file larger: as on a full disk, writes fail."""
    with outbox._file.lock:
        outbox._file._db.execute("CREATE TABLE ballast (bytes BLOB)")
        pages = outbox._file._db.execute("PRAGMA page_count").fetchone()[0]
        outbox._file._db.execute(f"PRAGMA max_page_count = {pages}")
        for size in (6000, 600, 60):
            with contextlib.suppress(sqlite3.OperationalError):
                while True:
                    outbox._file._db.execute("INSERT INTO ballast VALUES (zeroblob(?))", (size,))
    try:
        yield
    finally:
        with outbox._file.lock:
            outbox._file._db.execute("PRAGMA max_page_count = 1073741823")
            outbox._file._db.execute("DROP TABLE ballast")


def test_a_new_bundle_is_taken_up_while_running_and_never_mixes_with_the_old_one(settings, session_bundle, tmp_path):
    new_hash = renamed_bundle(session_bundle, tmp_path / "new").manifest.model_hash
    link = tmp_path / "bundle"
    link.symlink_to(session_bundle.path)
    live = {"source.realtime": True, "source.loop": True, "gate.mode": "every", "tracklet.early_s": 0.2}
    live["person.evidence_s"] = 0.0  # publish at once, though nobody was seen before
    config = settings({"engine.bundle": str(link), "engine.max_batch": 2, **live})
    with running(config) as agent:
        wait_until(lambda: agent.delivery.stats.acknowledged > 0)
        link.unlink()
        link.symlink_to(tmp_path / "new")
        agent.reload()
        wait_until(lambda: agent.reloads == 1)
        before = agent.pipeline.embedding.stats.embedded
        wait_until(lambda: agent.pipeline.embedding.stats.embedded > before + 10)
        assert agent.pipeline.embedding.extractor.bundle.manifest.model_hash == new_hash
        # The gallery holds features of the first model only: those of the second wait until someone accepts it.
        wait_until(lambda: agent.delivery.stats.refused > 0)
        wait_until(lambda: "refused" in kinds(agent))
    assert {entry.model_hash for entry in stored(config)} == {session_bundle.manifest.model_hash}
    assert agent.outbox.depth > 0

    store = open_store(config.upstream.uri)
    store.accept_model(new_hash, 512, now_us=time.time_ns() // 1000)
    store.close()
    with opened(settings({"filter.confidence": 1.0})) as agent:
        agent.run()
        assert agent.outbox.depth == 0
    entries = stored(config)
    assert {entry.model_hash for entry in entries} == {session_bundle.manifest.model_hash, new_hash}
    finals = [entry.tracklet for entry in entries if entry.final]  # who walks on is another tracklet
    assert len(set(finals)) == len(finals)


def test_a_damaged_bundle_is_not_taken_up(settings, session_bundle, tmp_path):
    link = tmp_path / "bundle"
    link.symlink_to(session_bundle.path)
    shutil.copytree(session_bundle.path, tmp_path / "damaged")
    weights = next((tmp_path / "damaged" / "openvino").glob("fp32.bin"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    live = {"source.realtime": True, "source.loop": True, "gate.mode": "every"}
    config = settings({"engine.bundle": str(link), "engine.max_batch": 2, **live})
    with running(config) as agent:
        wait_until(lambda: agent.pipeline.embedding.stats.embedded > 0)
        link.unlink()
        link.symlink_to(tmp_path / "damaged")
        agent.reload()
        wait_until(lambda: agent.failed_reloads == 1)
        before = agent.pipeline.embedding.stats.embedded
        wait_until(lambda: agent.pipeline.embedding.stats.embedded > before)
        assert metric(agent, "reid_edge_bundle_reload_failures_total") == 1
        wait_until(lambda: "reload" in kinds(agent))
        assert metric(agent, "reid_edge_problem", kind="reload") == 1
        assert metric(agent, "reid_edge_problem", kind="outbox") == 0
    with pytest.raises(BundleCorruptError):
        Agent(config)  # a start, unlike a reload, has nothing to go back to


@pytest.mark.parametrize("change", ["unsigned", "foreign", "altered"])
def test_with_a_key_pinned_only_what_it_signed_is_started_or_taken_up(settings, session_bundle, tmp_path, change):
    key, other = SigningKey.generate(), SigningKey.generate()
    for name in ("good", "bad"):
        shutil.copytree(session_bundle.path, tmp_path / name)
        text = (tmp_path / name / MANIFEST).read_bytes()
        (tmp_path / name / SIGNATURE).write_bytes(key.sign(text))
    if change == "unsigned":
        (tmp_path / "bad" / SIGNATURE).unlink()
    elif change == "foreign":
        (tmp_path / "bad" / SIGNATURE).write_bytes(other.sign(text))
    else:
        (tmp_path / "bad" / MANIFEST).write_bytes(text.replace(b"Market-1501", b"market-1501"))
    link = tmp_path / "bundle"
    link.symlink_to(tmp_path / "good")
    pinned = {"engine.bundle": str(link), "engine.max_batch": 1, "engine.trusted_keys": [key.public.text]}
    config = settings({**pinned, "source.realtime": True, "source.loop": True, "gate.mode": "every"})
    with running(config) as agent:
        assert "signed by " + key.public.fingerprint[:16] in agent.model
        link.unlink()
        link.symlink_to(tmp_path / "bad")
        agent.reload()
        wait_until(lambda: agent.failed_reloads == 1)
        before = agent.pipeline.embedding.stats.embedded
        wait_until(lambda: agent.pipeline.embedding.stats.embedded > before)
        assert str(tmp_path / "good") in agent.model
    with pytest.raises(BundleUntrustedError):
        Agent(config)
    assert {finding.subject: finding.state for finding in examine(config)}["model"] == "wrong"


def test_a_switched_off_camera_looks_at_nothing(settings, tmp_path):
    switch = tmp_path / "off"
    switch.touch()
    config = settings({"camera.off_switch": str(switch), "source.realtime": True, "source.loop": True})
    with running(config) as agent:
        wait_until(lambda: agent.pipeline.detection.stats.off > 5)
        assert agent.pipeline.detection.stats.frames == agent.pipeline.embedding.stats.embedded == 0
        switch.unlink()
        wait_until(lambda: agent.pipeline.embedding.stats.embedded > 0)


def test_a_pseudonym_stands_for_the_camera(settings, tmp_path):
    config = settings({"camera.name": "north", "camera.pseudonym_key": str(tmp_path / "key")})
    with opened(config) as agent:
        agent.run()
    cameras = {entry.camera for entry in stored(config)}
    assert cameras == {agent.camera}
    assert "north" not in agent.camera


def test_a_camera_that_gives_nothing_is_unhealthy_and_costs_nothing(settings):
    config = settings({"source.uri": "tcp://127.0.0.1:9", "operation.stalled_s": 0.2})
    with running(config) as agent:
        wait_until(lambda: "source" in kinds(agent))
        assert "no frame for" in agent.health().problems[0].text
        began = time.process_time()
        time.sleep(1)
        assert time.process_time() - began < 0.1  # 10 %; benchmarks/pipeline.py measures it


def test_a_source_that_fails_for_good_ends_the_run_with_its_error(settings, tmp_path):
    with pytest.raises(SourceError):
        Agent(settings({"source.uri": str(tmp_path / "missing.avi")}))


def test_nothing_stays_open_when_a_part_cannot_be_opened(settings, tmp_path):
    with pytest.raises(SourceError):
        Agent(settings({"source.uri": str(tmp_path / "missing.avi")}))
    with opened(settings()) as agent:  # the outbox's lock is free again
        assert agent.outbox.depth == 0


def test_systemd_is_told_and_its_watchdog_fed(settings, tmp_path, monkeypatch):
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        with running(settings({"source.realtime": True, "source.loop": True})):
            systemd.settimeout(PATIENCE_S)
            while heard.count(b"WATCHDOG=1") < 3:
                heard.append(systemd.recv(200))
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(systemd.recv(200))
    assert heard[0] == b"READY=1"
    assert heard[-1] == b"STOPPING=1"


def test_every_number_can_be_scraped(settings):
    with opened(settings()) as agent:
        agent.run()
        assert metric(agent, "reid_edge_frames_total") == 60
        assert metric(agent, "reid_edge_embeddings_total") == agent.pipeline.embedding.stats.embedded
        assert metric(agent, "reid_edge_outbox_rows") == 0
        assert 0 < metric(agent, "reid_edge_engine_seconds", percentile="99") < 60
        assert 0 < metric(agent, "reid_edge_publish_seconds", percentile="50") < 60


@pytest.mark.slow
def test_pedestrians_of_a_real_video_are_found_again_by_their_pictures(settings, session_bundle, real_data):
    video = real_data / "vtest.avi"  # 10 frames a second
    config = settings({"source.uri": str(video), "source.start": START})
    with opened(config) as agent:
        agent.run()
    assert agent.pipeline.detection.stats.frames == 795
    clear = [entry for entry in stored(config) if entry.final and entry.quality > 0.9 and entry.crops >= 3][:5]
    assert len(clear) == 5
    with open_source(config.source) as source:
        pictures = {frame.captured_us: frame.image for frame in source}
    extractor = Extractor(session_bundle, engine="openvino", precision="fp32")
    store, found = open_store(config.upstream.uri), 0
    try:
        for entry in clear:
            picture = pictures[entry.captured_us]
            height, width = picture.shape[:2]
            [feature] = extractor(picture, [np.array(entry.box) * (width, height, width, height)])
            best = store.search(feature, model_hash=entry.model_hash, selection=Selection(), top=5)
            # People of this video come back, so another of their tracklets may be nearer; and one track in the video
            # goes from one person to another who covers him.
            found += entry.tracklet in {match.entry.tracklet for match in best}
    finally:
        store.close()
    assert found >= 4
