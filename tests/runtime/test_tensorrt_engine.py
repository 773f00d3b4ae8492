"""The TensorRT engine on a driver and a library of our own: the features are those of the ONNX file of the plan."""

import dataclasses
import gc
import logging
import threading

import numpy as np
import pytest

from reid_edge.errors import EngineError, GpuError, GpuMemoryError, PlanMismatchError
from reid_edge.export.tensorrt import build_into_bundle
from reid_edge.runtime import Extractor
from reid_edge.runtime.cuda import Gpu
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.engines import tensorrt as engine_module
from reid_edge.runtime.engines.tensorrt import check_stamp
from reid_edge.runtime.golden import verify_bundle
from tests.gpu import tensorrt

MAX_BATCH = 6


@pytest.fixture
def crops(planned, rng):
    return rng.integers(0, 256, (MAX_BATCH, *planned.manifest.input.size, 3), dtype=np.uint8)


def loaded(bundle, precision="fp32", **options):
    return load_engine(bundle, bundle.artifact("tensorrt", precision), EngineOptions(**options))


def expected(bundle, crops, precision="fp32"):
    return load_engine(bundle, bundle.artifact("onnxruntime", precision), EngineOptions()).infer(crops)


def test_plans_are_built_checked_and_stamped_with_the_device(planned):
    stamp = planned.artifact("tensorrt", "fp16").plan
    assert (stamp.library, stamp.version, stamp.batches) == ("tensorrt", "10.3.0", (1, 6, 6))
    assert (stamp.device, stamp.compute_capability, stamp.multiprocessors) == ("Orin", "8.7", 8)
    assert stamp.memory_bytes == 8 << 30
    assert planned.artifact("tensorrt", "fp16").parity.cosine_min > 0.999
    assert {result.outcome for result in verify_bundle(planned, "tensorrt", "auto", EngineOptions())} == {"right"}


def test_the_precision_that_was_built_is_read_with_the_shape_known(planned):
    assert planned.artifact("tensorrt", "fp16").plan.built_precision == {"FP16": 3}
    assert planned.artifact("tensorrt", "fp32").plan.built_precision == {"FP32": 3}


def test_fp32_is_built_without_tf32(planned, library):
    build_into_bundle(planned, ["fp32"], max_batch=2, on_step=lambda: None)
    assert library.flags == set()


def test_auto_takes_the_plan_in_fp16(planned):
    extractor = Extractor(planned)
    assert extractor.artifact.name == "tensorrt/fp16"
    assert extractor.engine_description == "tensorrt 10.3.0 Orin"


def test_a_plan_that_cannot_run_is_said_once_with_the_reason(planned, driver, caplog):
    assert Extractor(planned).unused_plan == ""
    driver.gpu("Orin", "8.7", 16, 62 << 30)
    extractor = Extractor(planned)
    assert extractor.artifact.engine != "tensorrt"
    assert extractor.unused_plan.startswith("tensorrt/fp16: the plan was built for Orin")
    assert caplog.text.count("tensorrt/fp16 is not used") == 1
    assert Extractor(planned, engine=extractor.artifact.engine).unused_plan == ""


def test_a_plan_in_int8_alone_is_not_chosen_and_that_is_said(planned):
    kept = [one for one in planned.manifest.artifacts if one.engine != "tensorrt"]
    alone = dataclasses.replace(planned.artifact("tensorrt", "fp32"), precision="int8")
    manifest = dataclasses.replace(planned.manifest, artifacts=(*kept, alone))
    bundle = dataclasses.replace(planned, manifest=manifest)
    extractor = Extractor(bundle)
    assert not extractor.on_other_device
    assert extractor.unused_plan.startswith("tensorrt/int8: 'auto' chooses no INT8")
    chosen = Extractor(bundle, precision="int8")
    assert chosen.on_other_device and not chosen.unused_plan


def test_a_plan_is_not_missed_where_the_precision_that_was_asked_for_has_none(planned):
    extractor = Extractor(planned, precision="int8")
    assert (extractor.artifact.precision, extractor.unused_plan) == ("int8", "")


def test_a_plan_is_not_missed_where_tuning_chose_another_file(planned, monkeypatch):
    tuned = dataclasses.replace(planned.artifact("openvino", "fp32"), precision="tuned")
    monkeypatch.setattr("reid_edge.runtime.engines._tuned_for", lambda _bundle, _device: [tuned])
    extractor = Extractor(planned)
    assert (extractor.artifact, extractor.unused_plan) == (tuned, "")


def test_a_plan_that_was_tuned_for_another_device_is_said_to_be_so(planned):
    kept = [one for one in planned.manifest.artifacts if one.engine != "tensorrt"]
    tuned = dataclasses.replace(planned.artifact("tensorrt", "fp32"), precision="tuned")
    manifest = dataclasses.replace(planned.manifest, artifacts=(*kept, tuned))
    extractor = Extractor(dataclasses.replace(planned, manifest=manifest))
    assert extractor.unused_plan.startswith("tensorrt/tuned: it was tuned on another class of device")


def test_no_memory_on_the_gpu_is_told_from_other_reasons_not_to_take_a_plan(planned, driver):
    driver.fail("cuMemAlloc_v2", 2)
    extractor = Extractor(planned)
    assert extractor.lacks_gpu_memory
    assert extractor.unused_plan.startswith("tensorrt/fp16: cuMemAlloc_v2 failed: error 2")
    driver.fail("", 0)
    driver.gpu("Orin", "8.7", 16, 62 << 30)
    assert not Extractor(planned).lacks_gpu_memory


def test_a_plan_is_not_missed_where_another_device_was_asked_for(planned, driver):
    driver.gpu("Orin", "8.7", 16, 62 << 30)
    extractor = Extractor(planned, device="auto")
    assert (extractor.artifact.engine, extractor.unused_plan) == ("openvino", "")
    assert extractor.on_other_device


def test_every_batch_size_is_run_once_recorded_and_then_launched(planned, crops, driver):
    engine, before = loaded(planned), driver.launches
    for size in (1, 3, 2, 3, 1, 6):
        np.testing.assert_allclose(engine.infer(crops[:size]), expected(planned, crops[:size]), atol=1e-4)
    assert driver.launches - before == 6
    for start in range(3):  # other pixels, the recording of before
        part = crops[start : start + 2]
        np.testing.assert_allclose(engine.infer(part), expected(planned, part), atol=1e-4)
    assert driver.left[2] == 4


def test_the_smallest_and_the_largest_batch_have_a_profile_of_their_own(planned, crops, library, driver):
    bundle = build_into_bundle(planned, ["fp32"], max_batch=12, on_step=lambda: None)  # the usual batch is 8
    many = np.concatenate([crops, crops])
    engine = loaded(bundle)
    library.runs.clear()
    for size in (1, 8, 12, 5, 12):
        np.testing.assert_allclose(engine.infer(many[:size]), expected(bundle, many[:size]), atol=1e-4)
    assert dict(library.runs) == {1: 1, 8: 0, 12: 2, 5: 0}


def test_batch_sizes_beyond_those_recorded_share_the_profile_of_all(planned, crops, library, monkeypatch):
    monkeypatch.setattr(engine_module, "MAX_RECORDED", 1)
    engine = loaded(planned)
    library.runs.clear()
    for size in (3, 1, 6, 1):
        np.testing.assert_allclose(engine.infer(crops[:size]), expected(planned, crops[:size]), atol=1e-4)
    assert {profile for _size, profile in library.runs} == {0}


def test_a_profile_that_is_refused_is_an_error(planned, crops, library):
    engine = loaded(planned)
    library.refusals["set_optimization_profile_async"] = "Error Code 3: API Usage Error"
    with pytest.raises(EngineError, match=r"does not take its profile 1 for a batch of 1\..*reid-edge build"):
        engine.infer(crops[:1])
    library.refusals.clear()
    np.testing.assert_allclose(engine.infer(crops[:1]), expected(planned, crops[:1]), atol=1e-4)


def test_features_are_the_callers_own(planned, crops):
    engine = loaded(planned)
    first = engine.infer(crops[:2])
    kept = first.copy()
    engine.infer(crops[2:4])
    np.testing.assert_array_equal(first, kept)


def test_more_batch_sizes_than_are_recorded_are_right_too(planned, crops, monkeypatch, driver):
    monkeypatch.setattr(engine_module, "MAX_RECORDED", 2)
    engine = loaded(planned)
    for size in (1, 2, 3, 4, 3, 2, 1, 5, 3):
        np.testing.assert_allclose(engine.infer(crops[:size]), expected(planned, crops[:size]), atol=1e-4)
    assert driver.left[2] == 2


def test_a_plan_that_cannot_be_recorded_runs_unrecorded(planned, crops, library, driver, caplog):
    library.refusals["recording"] = "operation not permitted when stream is capturing"
    engine = loaded(planned)
    for _ in range(2):
        np.testing.assert_allclose(engine.infer(crops[:2]), expected(planned, crops[:2]), atol=1e-4)
    assert driver.launches == 0
    assert caplog.text.count("a batch of 2 cannot be recorded, it runs unrecorded") == 1


def test_four_threads_get_their_own_features(planned, crops):
    extractor = Extractor(planned, engine="tensorrt", precision="fp32")
    want = extractor([*crops])
    wrong = []

    def many(seed):
        order = np.random.default_rng(seed)
        for _ in range(10):
            some = order.permutation(MAX_BATCH)[: order.integers(1, MAX_BATCH)]
            if not np.allclose(extractor([crops[index] for index in some]), want[some], atol=1e-4):
                wrong.append(some)

    threads = [threading.Thread(target=many, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_engine_leaves_nothing_behind_at_once(planned, crops, driver):
    gc.disable()
    try:
        for _ in range(3):
            engine = loaded(planned)
            engine.infer(crops[:2])
            engine.infer(crops[:3])
            del engine
            assert driver.left == (0, 0, 0)
    finally:
        gc.enable()


@pytest.mark.parametrize("step", ["cuStreamCreate", "cuMemHostAlloc", "cuMemAlloc_v2"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_no_memory_at_any_step_of_the_set_up_is_typed_and_leaves_nothing(planned, driver, step, after):
    driver.fail(step, 2, after)
    try:
        engine = loaded(planned)
    except GpuMemoryError as error:
        assert "error 2 (CUDA_ERROR_OUT_OF_MEMORY" in str(error)
    else:  # the step is not taken so often
        driver.fail("", 0)
        del engine
    gc.collect()
    assert driver.left == (0, 0, 0)


@pytest.mark.parametrize(
    ("function", "words", "kind"),
    [
        ("create_execution_context", "Error Code 1: Cuda Runtime (out of memory)", GpuMemoryError),
        (
            "create_execution_context",
            "Requested amount of GPU memory could not be allocated.",
            GpuMemoryError,
        ),
        ("create_execution_context", "Error Code 2: Internal Error", EngineError),
        ("execute_async_v3", "Error Code 1: Cask (convolution failed)", GpuError),
    ],
)
def test_what_the_library_refuses_at_the_first_batch_is_typed_in_its_own_words(
    planned, crops, library, function, words, kind, capfd, caplog
):
    library.refusals[function] = words
    engine = loaded(planned)
    with pytest.raises(kind) as raised:
        engine.infer(crops[:1])
    assert words in str(raised.value)
    assert words in caplog.text
    assert capfd.readouterr().out == ""
    library.refusals.clear()
    np.testing.assert_allclose(engine.infer(crops[:1]), expected(planned, crops[:1]), atol=1e-4)


def test_a_refused_plan_and_no_memory_for_it_are_told_apart(planned, library, driver):
    library.refusals["deserialize_cuda_engine"] = "Serialization (Serialization assertion magicTag failed)"
    with pytest.raises(PlanMismatchError, match=r"was refused.*magicTag.*reid-edge build"):
        loaded(planned)
    library.refusals["deserialize_cuda_engine"] = "OutOfMemory (no further information)"
    with pytest.raises(GpuMemoryError, match="GPU and CPU share the memory"):
        loaded(planned)
    assert driver.left == (0, 0, 0)


def test_a_batch_that_the_plan_does_not_take_is_an_error(planned, crops):
    engine = loaded(planned)
    for wrong in (crops[:, :-1], crops.astype(np.float32), np.concatenate([crops, crops[:1]])):
        with pytest.raises(EngineError, match=r"takes up to 6 × \(256, 128, 3\) uint8"):
            engine.infer(wrong)


def test_orins_are_told_apart(planned, driver, caplog):
    """AGX Orin 64 GB, Orin NX 16 GB and Orin Nano 8 GB have one name and one compute capability."""
    for processors, memory in ((16, 62 << 30), (8, 15 << 30), (4, 4 << 30)):
        driver.gpu("Orin", "8.7", processors, memory)
        with pytest.raises(PlanMismatchError, match=rf"8 multiprocessors, 8\.0 GiB; here is Orin.*{processors} multip"):
            loaded(planned)
    driver.gpu("Orin", "8.7", 8, int(7.4 * 2**30))  # the same module; the kernel keeps some memory to itself
    loaded(planned)
    old = dataclasses.replace(planned.artifact("tensorrt", "fp32").plan, multiprocessors=0, memory_bytes=0)
    check_stamp(old, tensorrt.Fake(driver).module, Gpu("Orin", "8.7", 16, 62 << 30))


def test_the_log_of_the_library_is_ours(planned, library, caplog):
    log = engine_module.library_log(library.module)
    caplog.set_level(logging.DEBUG, "reid_edge.tensorrt")
    severities = tensorrt.Severity
    for severity in severities:
        log.log(severity, f"it said {severity.name}")
    levels = {record.getMessage(): record.levelname for record in caplog.records if "it said" in record.message}
    assert levels == {
        "tensorrt: it said INTERNAL_ERROR": "ERROR",
        "tensorrt: it said ERROR": "ERROR",
        "tensorrt: it said WARNING": "WARNING",
        "tensorrt: it said INFO": "DEBUG",
    }


def test_tensorrt_rtx_keeps_what_it_compiled(bundle_copy, rtx, tmp_path, driver):
    built = build_into_bundle(bundle_copy, ["fp16"], max_batch=4, on_step=lambda: None)
    crops = np.zeros((4, *built.manifest.input.size, 3), np.uint8)

    def run():
        rtx.compiled = 0
        engine = loaded(built, "fp16", cache_dir=tmp_path / "cache")
        for size in (1, 2, 4):
            engine.infer(crops[:size])
        return rtx.compiled

    assert run() == 3
    assert run() == 0
    (kept,) = (tmp_path / "cache" / "compiled").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert run() == 3
    assert run() == 0
    assert driver.launches == 0  # it records by itself
