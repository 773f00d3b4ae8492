from dataclasses import replace

import pytest

from reid_edge.errors import EngineError
from reid_edge.runtime import engines
from reid_edge.runtime.engines import onnxruntime as onnxruntime_engine
from reid_edge.runtime.engines import openvino as openvino_engine
from reid_edge.tuning_record import Execution


def openvino_network(bundle):
    model, weights = map(bundle.read, bundle.artifact("openvino", "fp32").files)
    return openvino_engine.read_network(model, weights, "a test")


@pytest.fixture(params=[None, 1])
def limit(request, monkeypatch):
    for module in (onnxruntime_engine, openvino_engine):
        monkeypatch.setattr(module, "thread_limit", lambda: request.param)
    return request.param


@pytest.mark.parametrize("asked", [None, 3])
def test_onnx_runtime_starts_the_threads_asked_for_else_what_a_quota_grants(session_bundle, limit, asked):
    model = session_bundle.read(session_bundle.artifact("onnxruntime", "fp32").files[0])
    session = onnxruntime_engine.open_session(model, "a test", threads=asked)
    # 0 leaves the choice to ONNX Runtime.
    assert session.get_session_options().intra_op_num_threads == (asked or limit or 0)


@pytest.mark.parametrize("asked", [None, 2])
def test_openvino_starts_the_threads_asked_for_else_what_a_quota_grants(session_bundle, limit, asked):
    model = openvino_network(session_bundle)
    model.reshape([1, *session_bundle.manifest.input.size, 3])
    compiled = openvino_engine.compile_network(model, "CPU", "a test", threads=asked)
    if expected := asked or limit:
        assert compiled.get_property("INFERENCE_NUM_THREADS") == expected


def test_a_tuned_files_own_number_of_threads_comes_before_a_quota(session_bundle, limit):
    tuned = replace(session_bundle.artifact("onnxruntime", "fp32"), precision="tuned", execution=Execution(threads=2))
    engine = engines.load_engine(session_bundle, tuned, engines.EngineOptions())
    assert engine._session.get_session_options().intra_op_num_threads == 2


def test_a_file_that_is_no_model_is_named(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(EngineError, match=r"text\.onnx"):
        onnxruntime_engine.open_session(b"no model", "a test", name="text.onnx")
    with pytest.raises(EngineError, match=r"text\.xml"):
        openvino_engine.read_network(b"no model", b"", "a test", name="text.xml")
    with pytest.raises(EngineError, match=r"text\.onnx"):
        openvino_engine.read_onnx(tmp_path / "text.onnx", "a test")


def test_a_device_that_openvino_lacks_is_an_error_that_lists_those_at_hand(session_bundle):
    model = openvino_network(session_bundle)
    with pytest.raises(EngineError, match=r"for NPU \(devices here: .*CPU"):
        openvino_engine.compile_network(model, "NPU", "a test")
