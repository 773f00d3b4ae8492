"""A worker's answers: loading, warming up, timing, and the queries that it times."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from reid_edge.benchmark.process import WorkerProcess
from reid_edge.benchmark.protocol import Load, Loaded, Prepare, Prepared, Profile, Profiled, Round, Timed
from reid_edge.benchmark.result import LayerTime, total_ms
from reid_edge.benchmark.worker import (
    FRAME_SIZE,
    WARM_UP_WINDOW,
    Worker,
    layers_of,
    make_query,
    person_boxes,
    street_frame,
    warm_up_until_settled,
)
from reid_edge.bundle import file_entry, write_manifest
from reid_edge.errors import EngineError, ParityError
from reid_edge.export.native import plan_of_onnx
from reid_edge.features import l2_normalised
from reid_edge.files import write_whole
from reid_edge.manifest import with_artifact
from reid_edge.runtime import Extractor
from reid_edge.runtime.native.library import LAYER_KINDS, LayerTimes
from reid_edge.runtime.native.work import count_work
from tests.runtime.native.networks import needs_library


@pytest.fixture(scope="module")
def worker():
    """A worker that several tests ask, one after the other."""
    process = WorkerProcess({})
    yield process
    process.close()


def load(bundle, precision="fp32", threads=1):
    return Load(bundle=str(bundle.path), engine="onnxruntime", precision=precision, threads=threads)


def test_code_in_the_current_folder_is_not_run(tmp_path, monkeypatch, session_bundle):
    for name in ("msgspec", "numpy", "runpy", "reid_edge"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code from the current folder')")
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(WorkerProcess({})) as process:
        assert process.ask(load(session_bundle), Loaded).load_ms > 0


def test_a_worker_loads_warms_up_and_times(worker, session_bundle):
    loaded = worker.ask(load(session_bundle), Loaded)
    assert loaded.load_ms > 0
    assert loaded.description.startswith("onnxruntime ")
    prepared = worker.ask(Prepare(scenario="multi-stream", crops=3, seconds=0.05), Prepared)
    assert prepared.first_ms > 0
    assert prepared.warm_up >= 1
    assert 20 < prepared.peak_rss_mb < 4000  # Python and an engine at least
    timed = worker.ask(Round(scenario="multi-stream", crops=3, seconds=0.05), Timed)
    assert len(timed.samples_ms) < timed.queries
    assert all(sample > 0 for sample in timed.samples_ms)
    # Time was up only with the last of them.
    assert sum(timed.samples_ms[:-1]) < 50 * 1.5


@needs_library
@pytest.mark.parametrize("scenario", ["multi-stream", "end-to-end"])
def test_a_worker_says_where_the_native_engines_time_goes(bundle_copy, scenario):
    plan = plan_of_onnx(bundle_copy.path / "model.onnx")
    write_whole(bundle_copy.path / "native/fp32.plan", plan)
    entry = file_entry(bundle_copy.path, "native/fp32.plan")
    artifact = dataclasses.replace(bundle_copy.artifact("openvino", "fp32"), engine="native", files=(entry,))
    write_manifest(bundle_copy.path, with_artifact(bundle_copy.manifest, artifact))
    worker = Worker()
    worker.answer(replace(load(bundle_copy), engine="native"))
    worker.answer(Prepare(scenario=scenario, crops=3, seconds=0.01))
    layers = worker.answer(Profile(scenario=scenario, crops=3, seconds=0.05)).layers
    ms = {layer.kind: layer.ms for layer in layers}
    assert list(ms) == [*(kind for kind in LAYER_KINDS if kind != "between layers"), "the rest"]
    assert min(ms[kind] for kind in (*count_work(plan), "resizing", "the rest")) > 0
    assert min(ms.values()) >= 0


def test_an_engine_that_cannot_tell_where_its_time_goes_says_nothing(worker, session_bundle):
    worker.ask(load(session_bundle), Loaded)
    worker.ask(Prepare(scenario="single-stream", crops=1, seconds=0.01), Prepared)
    assert worker.ask(Profile(scenario="single-stream", crops=1, seconds=0.05), Profiled).layers == ()


def test_what_the_measurement_takes_is_in_no_layer():
    class Extractor:
        def time_layers(self, call):
            call()
            return LayerTimes({"stem 7×7": 0.002, "between layers": 0.001}, clock=0.005)

    stem, rest = layers_of(Extractor(), lambda: time.sleep(0.02))
    assert stem == LayerTime(kind="stem 7×7", ms=2)
    assert rest.kind == "the rest" and rest.ms >= 13  # between layers, and outside the engine
    assert total_ms((stem, rest)) == pytest.approx(2 + rest.ms)


def test_another_device_is_named_and_must_compute_the_golden_features(bundle_copy):
    request = replace(load(bundle_copy), engine="openvino", device="AUTO", threads=None)
    assert Worker().answer(request).execution == "on AUTO"
    crops, features = bundle_copy.golden()
    np.savez(bundle_copy.path / "golden.npz", crops=crops, features=features[::-1])
    entry = file_entry(bundle_copy.path, "golden.npz")
    write_manifest(bundle_copy.path, dataclasses.replace(bundle_copy.manifest, golden=entry))
    assert Worker().answer(replace(request, device="CPU")).execution == ""
    with pytest.raises(ParityError, match="computes other features here"):
        Worker().answer(request)


def test_a_device_that_is_not_here_is_an_error_of_the_worker(session_bundle):
    request = replace(load(session_bundle), engine="openvino", device="NPU")
    with contextlib.closing(WorkerProcess({})) as process, pytest.raises(EngineError, match="NPU"):
        process.ask(request, Loaded)


def test_an_error_in_the_worker_is_named(bundle_copy):
    (bundle_copy.path / "model.onnx").write_bytes(b"")
    raises = pytest.raises(EngineError, match=r"BundleCorruptError: .*model\.onnx is not the file")
    with contextlib.closing(WorkerProcess({})) as process, raises:
        process.ask(load(bundle_copy), Loaded)


def test_what_engines_print_does_not_get_between_replies():
    script = (
        "import os\n"
        "from reid_edge.benchmark.worker import own_stdout\n"
        "replies = own_stdout()\n"
        "os.write(1, b'chatter of a library\\n'); print('chatter of Python', flush=True)\n"
        "replies.write(b'reply\\n'); replies.flush()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "reply\n"
    assert run.stderr == "chatter of a library\nchatter of Python\n"


def test_warming_up_ends_when_two_windows_agree():
    times = iter([50.0] * WARM_UP_WINDOW + [20.0] * WARM_UP_WINDOW + [20.3] * WARM_UP_WINDOW)
    assert warm_up_until_settled(lambda: next(times), 60) == (3 * WARM_UP_WINDOW, True)


def test_a_slow_query_does_not_warm_up_past_its_time():
    def slow():
        time.sleep(0.05)
        return 50.0

    ran, settled = warm_up_until_settled(slow, 0.12)
    assert (1 <= ran <= 3, settled) == (True, False)


def test_warming_up_that_never_settles_ends_by_the_clock():
    count = iter(range(10_000))

    def doubling():
        time.sleep(0.001)
        return 2.0 ** (next(count) // WARM_UP_WINDOW % 2)

    ran, settled = warm_up_until_settled(doubling, 0.1)
    assert not settled
    assert ran == next(count) >= 1


def test_a_workers_memory_is_not_its_parents(session_bundle):
    """``ru_maxrss`` would be: it lives on through fork and exec."""
    script = (
        "import sys\n"
        "ballast = bytearray(b'x') * (600 << 20)\n"
        "from reid_edge.benchmark.process import WorkerProcess\n"
        "from reid_edge.benchmark.protocol import *\n"
        "worker = WorkerProcess({})\n"
        "load = Load(bundle=sys.argv[1], engine='onnxruntime', precision='fp32', threads=1)\n"
        "worker.ask(load, Loaded)\n"
        "print(worker.ask(Prepare(scenario='single-stream', crops=1, seconds=0.01), Prepared).peak_rss_mb)\n"
        "worker.close()\n"
    )
    command = [sys.executable, "-c", script, str(session_bundle.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) < 400


@pytest.fixture(scope="module")
def extractor(session_bundle):
    return Extractor(session_bundle, engine="onnxruntime", precision="fp32", threads=1, cache_dir=None)


def test_people_stand_within_the_frame(rng):
    boxes = person_boxes(rng, 500)
    assert boxes.shape == (500, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= FRAME_SIZE[1]).all()
    assert (boxes[:, 3] <= FRAME_SIZE[0]).all()
    heights, widths = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    np.testing.assert_allclose(widths / heights, 0.41)
    assert heights.min() >= 120
    assert heights.max() <= 520
    assert street_frame(rng).shape == (1080, 1920, 3)


def test_end_to_end_gives_unit_features_of_all_boxes(extractor):
    features = make_query(extractor, "end-to-end", 3)()
    assert features.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-4  # of three boxes, not of one


@pytest.mark.parametrize(("scenario", "crops"), [("single-stream", 1), ("multi-stream", 5), ("offline", 40)])
def test_the_others_give_the_engines_own_features_of_as_many_crops(extractor, scenario, crops):
    features = make_query(extractor, scenario, crops)()
    assert features.shape == (crops, 512)
    assert not np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_ready_input_gives_what_calls_give(session_bundle, rng, engine):
    """11 crops go as 8 + 2 + 1 on OpenVINO."""
    extractor = Extractor(session_bundle, engine=engine, precision="fp32", cache_dir=None)
    crops = rng.integers(0, 256, (11, *session_bundle.manifest.input.size, 3), dtype=np.uint8)
    np.testing.assert_allclose(l2_normalised(extractor.infer(crops)), extractor(list(crops)), atol=1e-6)


def threads_after_loading(bundle, threads):
    process = WorkerProcess({})
    try:
        process.ask(load(bundle, threads=threads), Loaded)
        return len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    finally:
        process.close()


def test_a_worker_that_may_use_one_cpu_starts_the_threads_of_one(session_bundle):
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})  # which a worker inherits, as it does a container's cpuset
        assert threads_after_loading(session_bundle, None) == threads_after_loading(session_bundle, 1)
    finally:
        os.sched_setaffinity(0, allowed)
