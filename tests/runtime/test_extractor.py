"""From frame and boxes to features, on every engine and precision that runs here."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reid_edge.bundle import open_bundle, write_manifest
from reid_edge.crops import resize_into
from reid_edge.errors import BoxError, BundleVersionError, EngineError, EngineUnavailableError, FrameError, UsageError
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.manifest import model_hash
from reid_edge.progress import silent
from reid_edge.runtime import Extractor, engines
from reid_edge.runtime import extractor as extractor_module
from reid_edge.runtime.cuda import find_gpu
from reid_edge.tuning_record import Execution
from tests.conftest import random_crops
from tests.export.tiny import tiny_checkpoint

LIMITS = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.95}
FORMS = [(engine, precision) for engine in ("onnxruntime", "openvino") for precision in LIMITS]


@pytest.fixture(scope="module", params=FORMS, ids="/".join)
def extractor(request, session_bundle):
    engine, precision = request.param
    return Extractor(session_bundle, engine=engine, precision=precision, cache_dir=None)


@pytest.fixture(scope="module")
def exact(session_bundle):
    return Extractor(session_bundle, engine="onnxruntime", precision="fp32")


def reference(checkpoint, crops):
    """The checkpoint in PyTorch, pixels normalised here by hand, unit length."""
    pixels = np.empty((len(crops), *checkpoint.info.size, 3), np.uint8)
    for crop, out in zip(crops, pixels, strict=True):
        resize_into(crop, out)
    rgb = torch.from_numpy(pixels.astype(np.float32)[..., ::-1] / 255)
    x = (rgb - torch.tensor(checkpoint.info.mean)) / torch.tensor(checkpoint.info.std)
    with torch.no_grad():
        features = checkpoint.network()(x.permute(0, 3, 1, 2).float())
    return torch.nn.functional.normalize(features).numpy()


def cosines(first, second):
    return (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


def test_features_are_the_checkpoints(extractor, checkpoint, rng):
    """On blocky random pictures; INT8 is held to less, since such pictures are nothing like people."""
    crops = random_crops(rng, 11)
    features = extractor(crops)
    assert features.shape == (11, 512)
    assert features.dtype == np.float32
    limit = LIMITS[extractor.artifact.precision] if extractor.artifact.precision != "int8" else 0.75
    assert cosines(features, reference(checkpoint, crops)).min() >= limit


def test_features_have_unit_length(extractor, rng):
    np.testing.assert_allclose(np.linalg.norm(extractor(random_crops(rng, 3)), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 33, 65])
def test_any_number_of_crops_gives_the_same_rows_in_the_same_order(extractor, rng, count):
    crops = random_crops(rng, 5)
    order = rng.integers(0, 5, count)
    single = np.concatenate([extractor([crop]) for crop in crops])
    many = extractor([crops[i] for i in order])
    assert cosines(many, single[order]).min() > 0.9999


def test_no_crops_give_no_features(extractor):
    frame = np.zeros((10, 10, 3), np.uint8)
    for none in (extractor([]), extractor(frame, []), extractor(frame, np.zeros((0, 4)))):
        assert none.shape == (0, 512)
        assert none.dtype == np.float32


def test_boxes_in_a_frame_are_the_crops_they_cut(exact, rng):
    frame = random_crops(rng, 1)[0]
    frame = cv2.resize(frame, (640, 480))
    boxes = np.array([[10, 20, 60, 200], [300.4, 5.2, 380.9, 300], [-30, 100, 40, 900]])
    crops = [frame[20:200, 10:60], frame[5:300, 300:381], frame[100:480, 0:40]]
    np.testing.assert_array_equal(exact(frame, boxes), exact(crops))


def test_a_bad_box_is_an_error_that_names_it(exact):
    with pytest.raises(BoxError, match=r"box 1: \[5 5 5 9\] is empty.*Extractor\.extract"):
        exact(np.zeros((20, 20, 3), np.uint8), [[0, 0, 9, 9], [5, 5, 5, 9]])


def test_bad_boxes_can_be_skipped_and_reported(exact, rng):
    frame = cv2.resize(random_crops(rng, 1)[0], (100, 100))
    boxes = [[0, 0, 9, 9], [5, 5, 5, 9], [20, 20, 60, 90], [np.nan, 0, 1, 1]]
    extraction = exact.extract(frame, boxes)
    assert extraction.kept.tolist() == [0, 2]
    assert [box.index for box in extraction.skipped] == [1, 3]
    np.testing.assert_array_equal(extraction.features, exact(frame, [boxes[0], boxes[2]]))


def test_only_bad_boxes_give_no_features(exact):
    extraction = exact.extract(np.zeros((9, 9, 3), np.uint8), [[5, 5, 5, 9]])
    assert extraction.features.shape == (0, 512)
    assert extraction.kept.shape == (0,)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((9, 9, 3), np.float32),
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        5,
        "frame.jpg",
        None,
    ],
)
def test_a_wrong_frame_or_crop_is_an_error(exact, bad):
    with pytest.raises(FrameError, match="H×W×3 uint8"):
        exact([np.zeros((9, 9, 3), np.uint8), bad])
    with pytest.raises(FrameError, match="H×W×3 uint8"):
        exact(bad, [[0, 0, 5, 5]])


@pytest.mark.parametrize("bad", [None, 5, "crops"])
def test_what_is_no_list_of_crops_is_an_error(exact, bad):
    with pytest.raises(FrameError, match="a list of"):
        exact(bad)


def test_a_frame_without_boxes_is_an_error_that_says_so(exact):
    with pytest.raises(FrameError, match="pass its boxes too"):
        exact(np.zeros((9, 9, 3), np.uint8))


def test_a_result_is_the_callers_own(exact, rng):
    crops = random_crops(rng, 2)
    first = exact(crops)
    kept = first.copy()
    exact(random_crops(rng, 2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("streams", [1, 2])
def test_what_openvino_returned_stays_as_it_was_and_streams_split_nothing_up(session_bundle, rng, streams):
    plain = session_bundle.artifact("openvino", "fp32")
    split = replace(plain, precision="tuned", execution=Execution(streams=streams))
    first, second = rng.integers(0, 256, (2, 4, 256, 128, 3), dtype=np.uint8)
    engine = engines.load_engine(session_bundle, split, engines.EngineOptions(threads=2))
    found = engine.infer(first)
    engine.infer(second)
    assert (found.dtype, found.shape) == (np.float32, (4, 512))
    row_by_row = engines.load_engine(session_bundle, plain, engines.EngineOptions(threads=1))
    expected = np.concatenate([row_by_row.infer(first[row : row + 1]) for row in range(4)])
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_threads_may_share_an_extractor(session_bundle, rng):
    extractor = Extractor(session_bundle, engine="openvino", cache_dir=None)
    crops = [random_crops(rng, 3) for _ in range(4)]
    expected = [extractor(own) for own in crops]
    results: dict[int, list[np.ndarray]] = {index: [] for index in range(4)}

    def work(index):
        for _ in range(5):
            results[index].append(extractor(crops[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expectation in enumerate(expected):
        assert len(results[index]) == 5
        assert all(cosines(result, expectation).min() > 0.999999 for result in results[index])


def test_warming_up_compiles_every_batch(session_bundle):
    extractor = Extractor(session_bundle, engine="openvino", cache_dir=None)
    extractor.warm_up(5)
    assert sorted(extractor._engine._requests) == [1, 2, 4]


def test_auto_takes_openvino_fp32_on_a_cpu(session_bundle):
    if find_gpu() is None:
        assert Extractor(session_bundle).artifact.name == "openvino/fp32"


def test_auto_says_why_nothing_works(session_bundle, monkeypatch):
    def broken(*_arguments):
        raise EngineError("out of order")

    monkeypatch.setattr(engines, "load_engine", broken)
    with pytest.raises(EngineUnavailableError, match=r"openvino/fp32: out of order[\s\S]*reid-edge doctor"):
        Extractor(session_bundle)


@pytest.mark.slow
def test_an_engine_that_the_bundle_lacks_is_an_error(tmp_path):
    from tests.export.tiny import tiny_checkpoint

    options = ExportOptions(out=tmp_path / "b", formats=("onnx",), precisions=("fp32",), time_files=False)
    bundle = export_bundle(tiny_checkpoint(), options, silent)
    with pytest.raises(EngineUnavailableError, match="it holds onnxruntime/fp32"):
        Extractor(bundle, engine="openvino")


def test_an_unknown_openvino_device_is_an_error(session_bundle):
    with pytest.raises(EngineError, match="has no device 'NPU'"):
        Extractor(session_bundle, engine="openvino", device="NPU")


@pytest.mark.parametrize("threads", [0, -1, 100_000, "2", 2.5])
def test_threads_out_of_range_are_an_error(session_bundle, threads):
    with pytest.raises(UsageError, match="threads must be"):
        Extractor(session_bundle, threads=threads)


@pytest.mark.slow
def test_full_range_int8_is_refused_on_a_cpu_that_would_overflow(tmp_path, monkeypatch):
    options = ExportOptions(
        out=tmp_path / "b", precisions=("int8",), target_cpu="vnni", keep_rejected=True, time_files=False
    )
    monkeypatch.setattr(engines, "saturates_int8", lambda: False)  # whatever this CPU is
    bundle = export_bundle(tiny_checkpoint(), options, silent)
    assert bundle.artifact("openvino", "int8").needs_vnni
    monkeypatch.setattr(engines, "saturates_int8", lambda: True)
    with pytest.raises(EngineUnavailableError, match="--target-cpu any"):
        Extractor(bundle, engine="openvino", precision="int8")
    assert Extractor(bundle, engine="onnxruntime", precision="fp32").artifact.precision == "fp32"


def test_an_unknown_engine_or_precision_is_an_error_with_the_choices(session_bundle):
    for wrong in ({"engine": "coreml"}, {"precision": "fp8"}):
        with pytest.raises(UsageError, match="openvino"):
            Extractor(session_bundle, **wrong)


def test_a_user_without_a_home_runs_without_a_cache(session_bundle, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(extractor_module.Path, "home", homeless)
    assert Extractor(session_bundle, engine="onnxruntime")([]).shape == (0, 512)


def test_without_a_place_for_a_cache_models_are_compiled_and_a_warning_says_so(session_bundle, exact, rng, caplog):
    crops = random_crops(rng, 2)
    extractor = Extractor(session_bundle, engine="openvino", cache_dir=Path("/proc/none"))
    assert cosines(extractor(crops), exact(crops)).min() > 0.9999
    assert "compiled models are not kept in /proc/none/compiled" in caplog.text


def test_another_resize_rule_is_refused(bundle_copy):
    manifest = bundle_copy.manifest
    spec = replace(manifest.input, resize="lanczos")
    named = model_hash(manifest.model.checkpoint_sha256, spec, manifest.features)
    write_manifest(bundle_copy.path, replace(manifest, input=spec, model_hash=named))
    with pytest.raises(BundleVersionError, match="'lanczos'"):
        Extractor(open_bundle(bundle_copy.path))


@pytest.mark.slow
@pytest.mark.parametrize("input_format", ["pixels", "tensor"])
@pytest.mark.parametrize("norm", ["l2", "none"])
def test_either_input_and_norm_gives_the_checkpoints_features(tmp_path, input_format, norm, rng):
    checkpoint = tiny_checkpoint(width=0.25, size=(64, 32))
    options = ExportOptions(
        out=tmp_path / "b", precisions=("fp32",), input_format=input_format, norm=norm, time_files=False
    )
    bundle = export_bundle(checkpoint, options, silent)
    crops = random_crops(rng, 3)
    for engine in ("openvino", "onnxruntime"):
        features = Extractor(bundle, engine=engine, cache_dir=None)(crops)
        assert cosines(features, reference(checkpoint, crops)).min() > 0.99999
        assert cosines(features, reference(checkpoint, [crop[..., ::-1] for crop in crops])).max() < 0.99999
        assert (np.linalg.norm(features, axis=1) > 1.5).all() == (norm == "none")


def test_real_people_in_a_real_frame(session_bundle, checkpoint, real_data):
    """vtest.avi: boxes by hand around four walkers of frame 100; every engine agrees with PyTorch."""
    video = cv2.VideoCapture(str(real_data / "vtest.avi"))
    video.set(cv2.CAP_PROP_POS_FRAMES, 100)
    read, frame = video.read()
    assert read
    boxes = np.array([[484, 180, 528, 276], [641, 138, 687, 242], [108, 138, 140, 218], [300, 60, 330, 130]])
    expected = reference(checkpoint, [frame[y1:y2, x1:x2] for x1, y1, x2, y2 in boxes])
    for engine, precision in FORMS:
        features = Extractor(session_bundle, engine=engine, precision=precision, cache_dir=None)(frame, boxes)
        assert cosines(features, expected).min() >= LIMITS[precision], (engine, precision)


def test_the_runtime_imports_no_torch_and_imports_fast():
    code = (
        "import sys, time; start = time.perf_counter(); from reid_edge.runtime import Extractor;"
        "took = time.perf_counter() - start;"
        "heavy = {'torch', 'nncf', 'openvino', 'onnxruntime', 'tensorrt', 'onnx', 'safetensors'} & set(sys.modules);"
        "assert not heavy, heavy; print(took)"
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def test_a_signal_after_bundles_came_and_went_reaches_its_handler(session_bundle):
    """Each OpenVINO core of its own would leave a signal stack behind that is freed: a silent segmentation fault."""
    script = f"""
import gc, signal
from reid_edge.runtime import Extractor
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
one = Extractor({str(session_bundle.path)!r}, engine="openvino", precision="fp32", cache_dir=None)
two = Extractor({str(session_bundle.path)!r}, engine="openvino", precision="fp16", cache_dir=None)
del one
gc.collect()
del two
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "handled\n"), run.stderr
