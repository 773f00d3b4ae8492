"""Health: every way in which data can fail to arrive is told, of which kind, and in the log once a minute."""

import contextlib
import logging
import socket
import sqlite3
import threading
import time
import urllib.request

import numpy as np
import pytest

from reid_edge.camera.check import examine
from reid_edge.camera.detectors import JsonLinesSettings, open_detector, trouble_of
from reid_edge.camera.frames import Frame
from reid_edge.camera.health import KINDS, Examination, Growth, HealthMonitor, Problem, ProblemLog
from reid_edge.camera.status import AgentMetrics, StatusServer
from reid_edge.errors import GpuMemoryError, StoreError
from tests.camera.test_agent import (  # noqa: F401 - fixtures
    full_disk,
    kinds,
    metric,
    opened,
    running,
    session_bundle_is_loaded_once,
    settings,
    wait_until,
)
from tests.conftest import REPOSITORY

AWAY = {"upstream.uri": "http://127.0.0.1:9", "upstream.insecure": True, "operation.drain_s": 0}
AUTO = {"engine.engine": "auto", "engine.precision": "auto", "engine.max_batch": 2}
LIVE = {"source.realtime": True, "source.loop": True}
OFTEN = {"gate.mode": "every", "tracklet.early_s": 0.1, "tracklet.every_s": 0.1, "person.evidence_s": 0.0}


@pytest.fixture(autouse=True)
def examined_often(monkeypatch):
    monkeypatch.setattr("reid_edge.camera.health.EVERY_S", 0.05)


def text_of(agent, kind):
    return " ".join(problem.text for problem in agent.health().problems if problem.kind == kind)


def gallery_of(agent):
    """The collector of the gallery in the agent's process."""
    return agent.transport.trouble.__self__.open()


# --- the agent


def test_a_plan_that_is_not_used_makes_it_unhealthy_and_is_logged_once(settings, monkeypatch):  # noqa: F811
    with opened(settings({})) as agent:
        assert "no_gpu" not in {problem.kind for problem in Examination(agent)()}
        why = "tensorrt/fp16: the plan was built for another Orin."
        monkeypatch.setattr(agent.pipeline.embedding.extractor, "unused_plan", why)
        (problem,) = [problem for problem in Examination(agent)() if problem.kind == "no_gpu"]
    assert problem.text.startswith(
        "openvino/fp32 computes the features, though the bundle has a TensorRT plan: tensorrt"
    )
    assert "another Orin" in problem.text
    assert "engine.engine" in problem.text


@pytest.mark.parametrize("error", [GpuMemoryError("cuMemAlloc_v2 failed"), MemoryError("4 MB")])
def test_a_reload_for_which_there_is_no_memory_keeps_the_old_bundle(settings, monkeypatch, error):  # noqa: F811
    def no_memory(_settings):
        raise error

    with opened(settings({})) as agent:
        old = agent.pipeline.embedding.extractor
        monkeypatch.setattr("reid_edge.camera.agent.load_model", no_memory)
        agent._reload()
        assert agent.pipeline.embedding.extractor is old
        assert agent.failed_reloads == 1
        assert str(error) in agent.reload_trouble


def test_a_bundle_that_finds_no_gpu_memory_beside_the_old_one_does_not_replace_it(settings, planned, driver):  # noqa: F811
    with opened(settings({"engine.bundle": str(planned.path), **AUTO})) as agent:
        old = agent.pipeline.embedding.extractor
        assert old.artifact.engine == "tensorrt"
        driver.fail("cuMemAlloc_v2", 2)
        agent._reload()
        assert agent.pipeline.embedding.extractor is old
        assert (agent.reloads, agent.failed_reloads) == (0, 1)
        assert "CUDA_ERROR_OUT_OF_MEMORY" in agent.reload_trouble
        driver.fail("", 0)
        agent._reload()
        assert agent.pipeline.embedding.extractor.artifact.engine == "tensorrt"
        assert (agent.reloads, agent.reload_trouble) == (1, "")


def test_the_watchdog_is_fed_while_a_bundle_is_loaded_again_and_not_for_ever(settings, monkeypatch):  # noqa: F811
    fed, done = [], threading.Event()
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setattr("reid_edge.camera.agent.notify", fed.append)

    def load(_settings):
        assert done.wait(30)
        return agent.pipeline.embedding.extractor

    with opened(settings({})) as agent:
        monkeypatch.setattr("reid_edge.camera.agent.load_model", load)
        reload = threading.Thread(target=agent._reload)
        reload.start()
        wait_until(lambda: fed.count("WATCHDOG=1") >= 3)
        monkeypatch.setattr("reid_edge.camera.agent.LOADING_S", 0.0)
        done.set()
        reload.join(30)
        assert agent.reloads == 1
        done.clear()
        fed.clear()
        reload = threading.Thread(target=agent._reload)
        reload.start()
        time.sleep(0.2)
        assert "WATCHDOG=1" not in fed
        agent.stop()  # does not wait for what is loaded
        reload.join(30)
        assert not reload.is_alive()
        done.set()


def test_what_fails_unexpectedly_while_a_bundle_is_loaded_again_ends_the_agent(settings, monkeypatch):  # noqa: F811
    def fail(_settings):
        raise ZeroDivisionError

    with opened(settings({**LIVE, "operation.drain_s": 0})) as agent:
        monkeypatch.setattr("reid_edge.camera.agent.load_model", fail)
        agent.reload()
        with pytest.raises(ZeroDivisionError):
            agent.run()


def test_check_and_health_say_that_the_cpu_computes_although_there_is_a_plan(settings, planned, driver):  # noqa: F811
    config = settings({"engine.bundle": str(planned.path), **AUTO})
    (model,) = [finding for finding in examine(config) if finding.subject == "model"]
    assert model.state == "ok"
    driver.gpu("Orin", "8.7", 16, 62 << 30)
    (model,) = [finding for finding in examine(config) if finding.subject == "model"]
    assert model.state == "wrong"
    assert "the plan was built for Orin" in model.detail and "engine.engine" in model.detail


def test_observations_that_are_dropped_make_it_unhealthy_and_are_logged_once(settings, caplog):  # noqa: F811
    with running(settings({**LIVE, **OFTEN, **AWAY, "upstream.max_rows": 3})) as agent:
        wait_until(lambda: "dropped" in kinds(agent))
        before = agent.outbox.dropped["full"]
        wait_until(lambda: agent.outbox.dropped["full"] > before + 10)
        assert "full" in text_of(agent, "dropped")
        assert metric(agent, "reid_edge_problem", kind="dropped") == 1
    said = [record for record in caplog.records if "unhealthy (dropped)" in record.getMessage()]
    assert len(said) == 1


def test_observations_that_wait_for_too_long_make_it_unhealthy(settings):  # noqa: F811
    with running(settings({**LIVE, **OFTEN, **AWAY, "operation.undelivered_s": 0.5})) as agent:
        wait_until(lambda: "undelivered" in kinds(agent))
        assert "127.0.0.1:9" in text_of(agent, "undelivered")


def test_a_file_of_last_year_is_not_taken_to_have_waited_for_a_year(settings):  # noqa: F811
    start = {"source.start": "2025-06-01T00:00:00Z"}
    with running(settings({"source.loop": True, **start, **OFTEN, "operation.undelivered_s": 60.0})) as agent:
        wait_until(lambda: agent.publisher.stats.published > 0)
        time.sleep(0.7)
        assert "undelivered" not in kinds(agent)


def test_an_outbox_that_cannot_be_written_makes_it_unhealthy_until_it_can(settings, caplog):  # noqa: F811
    with running(settings({**LIVE, **OFTEN, **AWAY})) as agent:
        wait_until(lambda: agent.publisher.stats.published > 0)
        with full_disk(agent.outbox):
            wait_until(lambda: "outbox" in kinds(agent))
        wait_until(lambda: not kinds(agent))


@pytest.mark.parametrize(("error", "kind"), [(StoreError, "store"), (RuntimeError, "delivery")])
def test_a_store_in_this_process_that_fails_makes_it_unhealthy(settings, error, kind):  # noqa: F811
    with running(settings({**LIVE, **OFTEN, "operation.drain_s": 0})) as agent:
        wait_until(lambda: agent.delivery.stats.acknowledged > 0)

        def fail(_batches):
            raise error("the disk is on fire")

        agent.transport._receive = fail
        wait_until(lambda: kind in kinds(agent))
        assert "the disk is on fire" in text_of(agent, kind)


def test_a_gallery_in_this_process_that_is_damaged_or_deletes_nothing_makes_it_unhealthy(settings, tmp_path):  # noqa: F811
    with running(settings({**LIVE, **OFTEN})) as agent:
        wait_until(lambda: agent.delivery.stats.acknowledged > 0)
        assert "store" not in kinds(agent)
        with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db", timeout=30)) as db, db:
            db.execute("UPDATE observations SET quality = quality + 1")
        gallery_of(agent).retention._look()
        wait_until(lambda: "damaged observation" in text_of(agent, "store"))

        def fail(*_):
            raise StoreError("the disk is on fire")

        gallery_of(agent).retention.apply = fail
        gallery_of(agent).retention._due = 0
        wait_until(lambda: "not deleted on time: the disk is on fire" in text_of(agent, "store"))


def see_nonsense(frame):
    """Boxes that are no numbers, as of a network whose weights are damaged or overflow."""
    return np.full((3, 5), np.nan)


def see_elsewhere(frame):
    """Boxes in pixels of a larger picture."""
    return np.array([[5000, 5000, 5100, 5300, 0.9]])


@pytest.mark.parametrize("function", ["see_nonsense", "see_elsewhere"])
def test_a_detector_of_which_no_box_can_be_used_makes_it_unhealthy(settings, monkeypatch, function):  # noqa: F811
    monkeypatch.setattr("reid_edge.camera.health.USELESS_S", 0.3)
    detector = {"detector.kind": "callable", "detector.function": f"tests.camera.test_health:{function}"}
    with running(settings({**LIVE, **detector})) as agent:
        wait_until(lambda: "detector" in kinds(agent))
        assert "no box" in text_of(agent, "detector")


@pytest.mark.parametrize("sender", ["none", "silent", "malformed", "other numbers"])
def test_a_detector_in_another_process_that_is_dead_or_silent_makes_it_unhealthy(settings, tmp_path, sender):  # noqa: F811
    says = {
        "none": "no detector is connected",
        "silent": "is silent",
        "malformed": "are malformed",
        "other numbers": "match no frame",
    }
    detector = {"kind": "jsonlines", "listen": "tcp:127.0.0.1:0", "wait_ms": 1.0, "silent_s": 0.3}
    changes = {f"detector.{key}": value for key, value in detector.items()}
    with running(settings({**LIVE, **changes})) as agent, contextlib.ExitStack() as stack:
        if sender != "none":
            connection = stack.enter_context(socket.create_connection(agent.pipeline.detector.address))
        line = b'{"boxes"}\n' if sender == "malformed" else b'{"frame": 0, "boxes": []}\n'
        deadline = time.monotonic() + 30
        while says[sender] not in text_of(agent, "detector"):
            assert time.monotonic() < deadline, agent.health()
            if sender in ("malformed", "other numbers"):
                connection.sendall(line)
            time.sleep(0.02)


def test_a_sender_without_lines_for_empty_frames_may_be_silent_for_ever():
    detector = open_detector(JsonLinesSettings(listen="tcp:127.0.0.1:0", wait_ms=0, silent_s=float("inf")))
    try:
        for index in range(3):
            detector(Frame(np.zeros((4, 4, 3), np.uint8), 0, index))
            time.sleep(0.02)
        assert trouble_of(detector) == ""
    finally:
        detector.close()


HUNG = threading.Event()


def see_slowly(frame):
    """Hangs at the third frame, until the test lets go."""
    if frame.index == 3:
        HUNG.wait(60)
    return np.empty((0, 5))


def test_a_stage_that_hangs_makes_it_unhealthy(settings, monkeypatch):  # noqa: F811
    monkeypatch.setattr("reid_edge.camera.health.HANGING_S", 0.3)
    detector = {"detector.kind": "callable", "detector.function": "tests.camera.test_health:see_slowly"}
    HUNG.clear()
    with running(settings({**LIVE, **detector})) as agent:
        wait_until(lambda: "hanging" in kinds(agent))
        assert text_of(agent, "hanging") == "detection hangs"
        HUNG.set()
        wait_until(lambda: "hanging" not in kinds(agent))


def test_frames_of_which_none_can_be_decoded_make_it_unhealthy(settings):  # noqa: F811
    with opened(settings({"operation.stalled_s": 0.2})) as agent:
        stats, found = agent.pipeline.source.stats, Examination(agent)
        stats.unreadable += 5
        assert "frames" not in {problem.kind for problem in found()}  # of before the examination began
        stats.unreadable += 5
        assert "none of the last 5 frames" in " ".join(problem.text for problem in found())
        time.sleep(0.3)
        found()
        assert "frames" not in {problem.kind for problem in found()}
        stats.unreadable += 5
        stats.frames += 1
        assert "frames" not in {problem.kind for problem in found()}


def test_a_clock_before_2026_or_after_2099_makes_it_unhealthy(settings, monkeypatch):  # noqa: F811
    with running(settings(LIVE)) as agent:
        for now_s, date in ((0.0, "1970-01-01"), (5e9, "2128-06-11")):
            monkeypatch.setattr("reid_edge.camera.health.wall_s", lambda now_s=now_s: now_s)
            wait_until(lambda date=date: "clock" in kinds(agent) and date in text_of(agent, "clock"))


def test_acknowledgements_of_a_gallery_that_is_not_listed_make_it_unhealthy(settings):  # noqa: F811
    with running(settings({**LIVE, **AWAY})) as agent:
        wait_until(lambda: agent.pipeline.source.stats.frames > 1)
        time.sleep(0.2)
        agent.delivery.stats.foreign_acks += 1
        agent.delivery.stats.foreign_galleries["other"] = 1
        wait_until(lambda: "foreign_gallery" in kinds(agent))
        assert "other acknowledges" in text_of(agent, "foreign_gallery")


def test_the_pages_answer_while_the_outboxs_lock_is_held(settings):  # noqa: F811
    with running(settings({**LIVE, **OFTEN, **AWAY})) as agent:
        wait_until(lambda: agent.publisher.stats.published > 0)
        server = StatusServer("127.0.0.1:0", AgentMetrics(agent), agent.health)
        try:
            with agent.outbox._file.lock:
                for path in ("healthz", "metrics"):
                    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{path}", timeout=2) as page:
                        assert page.status == 200
        finally:
            server.close()


def test_every_kind_is_documented():
    text = (REPOSITORY / "docs" / "camera.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"\n| `{kind}` | " in text


# --- its parts


def test_a_monitor_answers_while_an_examination_hangs(monkeypatch):
    monkeypatch.setattr("reid_edge.camera.health.STALE_S", 0.2)
    hung, calls = threading.Event(), []

    def examine():
        calls.append(1)
        if len(calls) > 1:
            hung.wait(30)
        return [Problem("source", "no frame")]

    monitor = HealthMonitor(examine)
    monitor.start()
    try:
        wait_until(lambda: len(monitor.latest().problems) == 2)
        assert [problem.kind for problem in monitor.latest().problems] == ["source", "unexamined"]
    finally:
        hung.set()
        monitor.close()


def test_an_examination_that_fails_is_a_problem():
    monitor = HealthMonitor(lambda: 1 / 0)
    monitor.examine()
    [problem] = monitor.latest().problems
    assert problem.kind == "unexamined" and "ZeroDivisionError" in problem.text


def test_a_problem_is_logged_at_once_each_minute_and_when_it_has_ended(caplog):
    caplog.set_level(logging.INFO)
    lines = ProblemLog()
    for second in range(0, 150, 2):
        lines.note(
            [Problem("source", f"no frame for {second} s"), Problem("outbox", "logged by the publisher")], second
        )
    lines.note([], 150)
    for second in range(152, 170, 2):  # it comes and goes
        lines.note([Problem("source", "no frame")] * (second % 4 == 0), second)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "unhealthy (source): no frame for 0 s",
        "unhealthy (source): no frame for 60 s",
        "unhealthy (source): no frame for 120 s",
        "no longer unhealthy (source), after 150 s",
    ]


def test_growth_is_that_of_the_time_asked_for():
    grown = Growth(10)
    assert [grown(value, second) for second, value in ((0, 100), (5, 101), (10, 105), (16, 105), (30, 105))] == [
        0, 1, 5, 4, 0,
    ]  # fmt: skip


def test_motion_that_is_out_of_its_depth_says_what_to_use_and_is_logged_once(settings, caplog):  # noqa: F811
    with opened(settings()) as agent:
        assert "out_of_depth" not in kinds_now(agent)
        agent.pipeline.person_check._recent.extend([False] * 16)
        [problem] = [each for each in Examination(agent)() if each.kind == "out_of_depth"]
    for said in ("0 of the last 16", "--detector person-detection-0202", "reid-edge preview", "person.min_passing = 0"):
        assert said in problem.text
    log = ProblemLog()
    for second in range(0, 600, 30):
        log.note([problem], second)
    assert len([record for record in caplog.records if "out_of_depth" in record.getMessage()]) == 1


def kinds_now(agent):
    return {problem.kind for problem in Examination(agent)()}
