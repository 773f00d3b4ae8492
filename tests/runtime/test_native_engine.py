"""The native engine behind the Engine protocol: files, precisions, threads, and when ``auto`` takes it."""

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.bundle import Bundle, file_entry, open_bundle, write_manifest
from reid_edge.crops import crop_boxes, resize_into
from reid_edge.errors import BundleCorruptError, BundleVersionError, EngineUnavailableError
from reid_edge.features import l2_normalised, row_cosines
from reid_edge.files import write_whole
from reid_edge.manifest import RANDOM_WEIGHTS, with_artifact
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.engines import native as native_engine
from reid_edge.runtime.extractor import Extractor
from reid_edge.runtime.golden import check_extractor, verify_bundle
from reid_edge.runtime.native import library
from reid_edge.tuning_record import Execution
from tests.commands import failure, success
from tests.runtime.native.networks import kernels_of, needs_library

pytestmark = needs_library


@pytest.fixture(scope="module")
def bundle(session_bundle, tmp_path_factory) -> Bundle:
    """The session's bundle with plans in every precision that this machine can run."""
    from reid_edge.export.native import int8_plan_of_onnx, native_precisions, plan_of_onnx

    folder = shutil.copytree(session_bundle.path, tmp_path_factory.mktemp("native") / "bundle")
    manifest = session_bundle.manifest
    crops, _ = session_bundle.golden()
    for precision in native_precisions():
        source = folder / "model.onnx"
        plan = int8_plan_of_onnx(source, [crops]) if precision == "int8" else plan_of_onnx(source)
        write_whole(folder / f"native/{precision}.plan", plan)
        like = session_bundle.artifact("openvino", precision)
        entry = file_entry(folder, f"native/{precision}.plan")
        manifest = with_artifact(manifest, replace(like, engine="native", files=(entry,)))
    write_manifest(folder, manifest)
    return open_bundle(folder)


def test_its_features_are_the_checkpoints_in_every_precision(bundle):
    checked = verify_bundle(bundle, "native", "auto", EngineOptions())
    assert [each.outcome for each in checked] == ["right"] * len(checked)


@pytest.mark.skipif(not kernels_of("bf16"), reason="this CPU has no instructions for bfloat16")
def test_a_tuned_plan_is_computed_in_bfloat16(bundle):
    artifact = replace(bundle.artifact("native", "fp32"), precision="tuned", execution=Execution(float_type="bf16"))
    crops, expected = bundle.golden()
    got = load_engine(bundle, artifact, EngineOptions()).infer(crops)
    assert 1 - 1e-6 > row_cosines(got, expected).min() >= 0.9999


@pytest.mark.parametrize("change", [{"convolution": "standard"}, {"stem_pool": False}, {"pooling": "maximum"}])
def test_networks_that_it_does_not_compute_get_no_plan(change):
    from reid_edge.export.native import why_no_plan
    from reid_edge.osnet.checkpoint import CheckpointInfo

    taken = CheckpointInfo(width=0.25, variant=NetworkVariant(streams=(1, 2), fusion="separate"))
    assert why_no_plan(taken, "pixels") is None
    assert "uint8 pixels" in str(why_no_plan(taken, "tensor"))
    name, value = next(iter(change.items()))
    refused = replace(taken, variant=NetworkVariant(**change))
    assert f"this network is {name}={value}" in str(why_no_plan(refused, "pixels"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variant": NetworkVariant(streams=(1,) * 9)}, "at most 8 streams in a bottleneck, and this network has 9"),
        ({"variant": NetworkVariant(streams=(1, 17))}, "at most 16 layers in a stream, and this network has 17"),
        ({"variant": NetworkVariant(blocks=(3, 60, 2))}, "at most 64 bottlenecks, and this network has 65"),
        ({"size": (4096, 2048)}, "at most 67,108,864 numbers in a map, and this network has 134,217,728"),
        ({"mean": (123.7, 116.3, 103.5)}, "a mean of the images from 0 to 1"),
    ],
)
def test_networks_larger_than_a_plan_get_none(change, reason):
    from reid_edge.export.native import why_no_plan
    from reid_edge.osnet.checkpoint import CheckpointInfo

    info = CheckpointInfo(
        width=1.0, size=(2048, 2048), variant=NetworkVariant(streams=(1,) * 7 + (16,), blocks=(3, 59, 2))
    )
    assert why_no_plan(info, "pixels") is None
    assert reason in str(why_no_plan(replace(info, **change), "pixels"))


def test_an_export_asks_for_the_size_that_it_makes():
    from reid_edge.cli.export import _obstacles
    from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo

    checkpoint = Checkpoint(CheckpointInfo(width=1.0), {})
    assert "native" not in _obstacles(checkpoint, "pixels")
    assert "numbers in a map" in str(_obstacles(checkpoint.at_size((4096, 2048)), "pixels")["native"])


@pytest.mark.slow
def test_a_network_larger_than_a_plan_is_exported_for_the_other_engines(tmp_path):
    from reid_edge.osnet.checkpoint import save_checkpoint
    from tests.export.tiny import tiny_checkpoint

    tiny = tiny_checkpoint(variant=NetworkVariant(blocks=(1, 1, 1), streams=(1,) * 9))
    save_checkpoint(replace(tiny, info=replace(tiny.info, dataset=RANDOM_WEIGHTS)), tmp_path / "nine.safetensors")
    command = ("export", "--checkpoint", "nine.safetensors", "--precision", "fp32", "--no-latency", "--out")
    assert "Native engine: the native engine computes at most 8 streams" in success(*command, "b", cwd=tmp_path)
    engines = {artifact.engine for artifact in open_bundle(tmp_path / "b").manifest.artifacts}
    assert "openvino" in engines and "native" not in engines
    assert "at most 8 streams" in failure(*command, "c", "--formats", "native", cwd=tmp_path)


def test_float16_is_refused(bundle):
    artifact = replace(bundle.artifact("native", "fp32"), precision="fp16")
    with pytest.raises(EngineUnavailableError, match="fp32, bf16 and int8"):
        load_engine(bundle, artifact, EngineOptions())


@pytest.mark.skipif(kernels_of("fp32")[0] == "portable", reason="no kernels for this CPU's instructions")
def test_auto_takes_it_first(bundle):
    assert Extractor(bundle).artifact.name == "native/fp32"


def test_auto_goes_on_and_says_so_where_only_portable_kernels_run(bundle, monkeypatch, caplog):
    load = native_engine.NativeNetwork
    monkeypatch.setattr(native_engine, "NativeNetwork", lambda *a, **k: load(*a, **k, kernels="portable"))
    with caplog.at_level(logging.WARNING):
        assert Extractor(bundle).artifact.name == "openvino/fp32"
    assert [record.getMessage() for record in caplog.records if "native/fp32 is not used" in record.getMessage()]
    assert Extractor(bundle, engine="native", precision="fp32").artifact.name == "native/fp32"


def test_auto_ends_with_float32_where_no_engine_computes_int8(bundle, monkeypatch, caplog):
    """As on Arm without sdot."""
    load = native_engine.NativeNetwork

    def without_int8(*arguments, precision, **options):
        if precision == "int8":
            raise EngineUnavailableError("no kernels for INT8 run on this CPU")
        return load(*arguments, precision=precision, **options)

    monkeypatch.setattr(native_engine, "NativeNetwork", without_int8)
    assert Extractor(bundle, precision="int8").artifact.name == "openvino/int8"
    artifacts = [replace(bundle.artifact("native", "fp32"), precision=precision) for precision in ("fp32", "int8")]
    alone = replace(bundle, manifest=replace(bundle.manifest, artifacts=tuple(artifacts)))
    with caplog.at_level(logging.WARNING):
        assert Extractor(alone, precision="int8").artifact.name == "native/fp32"
    assert "native/int8 is not used: no kernels for INT8" in caplog.text
    for only in artifacts:
        bundle_of_one = replace(bundle, manifest=replace(bundle.manifest, artifacts=(only,)))
        with pytest.raises(EngineUnavailableError):
            Extractor(bundle_of_one, precision="int8")
    with pytest.raises(EngineUnavailableError, match="no kernels for INT8"):
        Extractor(bundle, engine="native", precision="int8")


def test_auto_goes_on_where_the_library_is_missing(bundle, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
    library._library.cache_clear()
    try:
        assert Extractor(bundle).artifact.name == "openvino/fp32"
        with pytest.raises(EngineUnavailableError, match=r"no native engine\. Build a wheel .* in a checkout"):
            Extractor(bundle, engine="native")
    finally:
        library._library.cache_clear()


def test_auto_goes_on_where_a_plan_is_of_another_release(bundle, monkeypatch):
    def of_another_format(*_arguments, **_options):
        raise BundleVersionError("fp32.plan has format 2, this release reads 1")

    monkeypatch.setattr(native_engine, "NativeNetwork", of_another_format)
    assert Extractor(bundle).artifact.name == "openvino/fp32"
    with pytest.raises(BundleVersionError):
        Extractor(bundle, engine="native")


def test_a_forked_child_gets_an_error_even_while_another_thread_computes(bundle):
    code = """
import os, sys, threading
import numpy as np
from reid_edge import Extractor
from reid_edge.errors import EngineError

extractor, crops = Extractor(sys.argv[1], engine="native", precision="fp32"), [np.zeros((99, 44, 3), np.uint8)] * 8
threading.Thread(target=lambda: [extractor(crops) for _ in range(10**9)], daemon=True).start()
for _ in range(10):
    if os.fork() == 0:
        try:
            extractor(crops)
        except EngineError as error:
            os._exit("forked" not in str(error))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code, str(bundle.path)], timeout=60, check=False)
    assert done.returncode == 0


def test_too_little_address_space_is_an_engine_error_wherever_it_runs_out(bundle):
    """First as a file is read, then for the largest batch, then for the features."""
    code = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from reid_edge import Extractor
from reid_edge.bundle import open_bundle
from reid_edge.errors import EngineError

bundle = open_bundle(sys.argv[1])
plain, large = (replace(bundle.artifact("native", "fp32"), max_batch=most) for most in (32, 1024))
plain, large = (replace(bundle, manifest=replace(bundle.manifest, artifacts=(one,))) for one in (plain, large))
extractor, crops = Extractor(plain, threads=1), [np.zeros((99, 44, 3), np.uint8)] * 50_000
extractor(crops[:40])

def outcome(mebibytes, call):
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(mebibytes * 2**20), unlimited[1]))
    try:
        call()
    except EngineError as error:
        return str(error).replace("\\n", " ")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)

print(outcome(0.5, lambda: Extractor(plain, threads=1, engine="native")))
print(outcome(0.5, lambda: Extractor(plain, threads=1)))
print(outcome(60, lambda: Extractor(large, threads=1)))
print(outcome(60, lambda: extractor(crops)))
"""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # large memory is asked of the system each time
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle.path)],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.partition(". Raise the limit")[0] for line in done.stdout.splitlines()] == [
        "no memory for native/fp32",
        f"no engine on this device can run {bundle.path}:   native/fp32: no memory for native/fp32",
        "no memory for a batch of 1024 crops",
        "no memory for features of 50,000 crops",
    ]


@pytest.mark.parametrize("without", ["native/", "golden"])
def test_auto_goes_on_where_there_is_no_memory_for_a_plan_or_its_golden_features(without, bundle, monkeypatch):
    read = Bundle.read

    def no_memory(self, entry):
        if entry.path.startswith(without):
            raise MemoryError
        return read(self, entry)

    monkeypatch.setattr(Bundle, "read", no_memory)
    assert Extractor(bundle).artifact.name == "openvino/fp32"


def test_auto_goes_on_where_its_golden_features_do_not_hold(bundle, monkeypatch, caplog):
    run = native_engine.NativeNetwork.run
    monkeypatch.setattr(native_engine.NativeNetwork, "run", lambda self, pixels: run(self, pixels)[:, ::-1])
    with caplog.at_level(logging.WARNING):
        assert Extractor(bundle).artifact.name == "openvino/fp32"
    assert any("computes other features here" in record.getMessage() for record in caplog.records)


def test_a_plan_that_is_none_is_a_corrupt_bundle(bundle, tmp_path):
    folder = shutil.copytree(bundle.path, tmp_path / "copy")
    (folder / "native/fp32.plan").write_bytes(b"no plan" * 100)
    artifact = replace(bundle.artifact("native", "fp32"), files=(file_entry(folder, "native/fp32.plan"),))
    write_manifest(folder, with_artifact(bundle.manifest, artifact))
    with pytest.raises(BundleCorruptError, match=r"native/fp32\.plan"):
        Extractor(folder, engine="native", precision="fp32")


def test_features_do_not_depend_on_threads_or_on_the_rest_of_the_batch(bundle):
    crops, _ = bundle.golden()
    one = Extractor(bundle, engine="native", threads=1)
    two = Extractor(bundle, engine="native", threads=2)
    together = one(list(crops))
    assert np.array_equal(together, two(list(crops)))
    assert np.array_equal(together, np.concatenate([one([crop]) for crop in crops]))


def test_boxes_of_a_frame_are_resized_in_the_engine_to_the_same_features(bundle, rng):
    frame = rng.integers(0, 256, (540, 960, 3), np.uint8)
    boxes = [[10.5, 20, 200, 500], [900, 400, 2000, 2000], [-5, -5, 3, 3], [0, 0, 960, 540], [33, 44, 34, 45]]
    for precision in ("fp32", "int8"):
        extractor = Extractor(bundle, engine="native", precision=precision, max_batch=4)
        crops, _ = crop_boxes(frame, boxes)
        pixels = np.empty((len(crops), *bundle.manifest.input.size, 3), np.uint8)
        for crop, out in zip(crops, pixels, strict=True):
            resize_into(crop, out)
        expected = l2_normalised(extractor.infer(pixels))
        np.testing.assert_array_equal(extractor(frame, boxes), expected)
        np.testing.assert_array_equal(extractor(frame[::-1][::-1], boxes), expected)
        np.testing.assert_array_equal(extractor([crop.copy() for crop in crops]), expected)


def test_a_crop_larger_than_the_library_resizes_is_resized_before(bundle):
    crop = np.random.default_rng(1).integers(0, 256, (9000, 10, 3), np.uint8)
    pixels = np.empty((1, *bundle.manifest.input.size, 3), np.uint8)
    resize_into(crop, pixels[0])
    extractor = Extractor(bundle, engine="native", precision="fp32")
    np.testing.assert_array_equal(extractor([crop]), l2_normalised(extractor.infer(pixels)))


def test_golden_crops_are_run_once_where_auto_has_compared_them(bundle, monkeypatch):
    extractor = Extractor(bundle)
    assert extractor.artifact.engine == "native"
    monkeypatch.setattr(Extractor, "_features", None)
    assert check_extractor(extractor) == extractor.golden_cosine >= 0.99999


def test_golden_crops_are_compared_where_the_engine_was_named(bundle):
    extractor = Extractor(bundle, engine="native", precision="fp32")
    assert extractor.golden_cosine is None
    assert check_extractor(extractor) >= 0.99999
