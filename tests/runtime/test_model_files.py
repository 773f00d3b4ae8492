"""What is hashed is what is loaded: model files are read once, whatever becomes of them afterwards."""

import os
import shutil
import threading

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from reid_edge.bundle import open_bundle
from reid_edge.errors import BundleCorruptError, EngineError
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines.onnxruntime import open_session
from tests.conftest import random_crops

ENGINES = ("openvino", "onnxruntime")


def alter_weights(path):
    """Change the weights of an OpenVINO file so that it still loads, and computes something else."""
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    numbers = data[: len(data) // 4 * 4].view(np.float32)
    usual = np.isfinite(numbers) & (np.abs(numbers) < 10) & (np.abs(numbers) > 1e-4)
    numbers[usual] *= np.random.default_rng(0).normal(1, 0.5, usual.sum()).astype(np.float32)
    path.write_bytes(data.tobytes())


def right(bundle, crops):
    return Extractor(bundle, engine="onnxruntime", precision="fp32")(crops)


def test_a_link_that_points_elsewhere_later_changes_no_batch_size(session_bundle, tmp_path, rng):
    crops = random_crops(rng, 5)
    for name in ("first", "second"):
        shutil.copytree(session_bundle.path, tmp_path / name)
    alter_weights(tmp_path / "second" / "openvino" / "fp32.bin")
    link = tmp_path / "current"
    link.symlink_to("first")
    extractor = Extractor(link, engine="openvino", precision="fp32", cache_dir=None)
    extractor(crops[:1])
    link.unlink()
    link.symlink_to("second")
    assert (extractor(crops) * right(session_bundle, crops)).sum(1).min() > 0.9999
    extractor.bundle.check_files()  # of the folder that was opened
    with pytest.raises(BundleCorruptError, match=r"second/openvino/fp32\.bin"):
        Extractor(link, engine="openvino", precision="fp32", cache_dir=None)


@pytest.mark.parametrize("engine", ENGINES)
def test_files_that_change_in_place_have_no_effect_on_what_runs(bundle_copy, engine, rng):
    crops = random_crops(rng, 5)
    expected = right(bundle_copy, crops)
    extractor = Extractor(bundle_copy, engine=engine, precision="fp32", cache_dir=None)
    extractor(crops[:1])
    for entry in bundle_copy.manifest.entries():
        (bundle_copy.path / entry.path).write_bytes(b"\xff" * entry.size_bytes)
    assert (extractor(crops) * expected).sum(1).min() > 0.9999


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_changes_after_the_manifest_was_read_is_refused(bundle_copy, engine):
    opened = open_bundle(bundle_copy.path)
    path = opened.path / opened.artifact(engine, "fp32").files[-1].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleCorruptError, match="is not the file that was exported"):
        Extractor(opened, engine=engine, precision="fp32", cache_dir=None)


def test_a_file_longer_than_the_manifest_says_is_not_read_to_its_end(bundle_copy):
    entry = bundle_copy.manifest.golden
    os.truncate(bundle_copy.path / entry.path, 1 << 40)  # sparse: takes no disk, and would take all memory
    with pytest.raises(BundleCorruptError, match="longer than"):
        bundle_copy.golden()


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(bundle_copy):
    path = bundle_copy.path / bundle_copy.artifact("openvino", "fp32").files[0].path
    path.unlink()
    os.mkfifo(path)
    found: list[BaseException] = []

    def open_it():
        try:
            Extractor(bundle_copy, engine="openvino", precision="fp32")
        except BundleCorruptError as error:
            found.append(error)

    thread = threading.Thread(target=open_it, daemon=True)
    thread.start()
    thread.join(10)
    assert "not a regular file" in str(found[0])


@pytest.fixture
def outside(tmp_path):
    """An ONNX model whose weights lie in another file: the model, that file's content, and what the model computes."""
    weights = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path.read_bytes(), (tmp_path / "weights.bin").read_bytes(), weights.sum(0)


def test_weights_outside_an_onnx_file_are_taken_from_the_contents_given(outside):
    model, weights, expected = outside
    session = open_session(model, "a test", external={"weights.bin": weights})
    np.testing.assert_allclose(session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0], expected, rtol=1e-5)


def test_weights_that_nobody_listed_are_not_read_even_if_they_lie_in_the_current_folder(outside, tmp_path, monkeypatch):
    model, _weights, _expected = outside
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="External data"):
        open_session(model, "a test")
