from dataclasses import replace

import pytest

from reid_edge.errors import EngineError
from reid_edge.runtime import engines
from reid_edge.runtime.engines import onnxruntime as onnxruntime_engine
from reid_edge.runtime.engines import openvino as openvino_engine
from reid_edge.tuning_record import Execution


@pytest.fixture(params=[None, 1])
def limit(request, monkeypatch):
    for module in (onnxruntime_engine, openvino_engine):
        monkeypatch.setattr(module, "thread_limit", lambda: request.param)
    return request.param


@pytest.mark.parametrize("asked", [None, 3])
def test_onnx_runtime_starts_the_threads_asked_for_else_what_a_quota_grants(session_bundle, limit, asked):
    path = session_bundle.path / session_bundle.artifact("onnxruntime", "fp32").files[0].path
    session = onnxruntime_engine.open_session(path, "a test", threads=asked)
    # 0 leaves the choice to ONNX Runtime.
    assert session.get_session_options().intra_op_num_threads == (asked or limit or 0)


@pytest.mark.parametrize("asked", [None, 2])
def test_openvino_starts_the_threads_asked_for_else_what_a_quota_grants(session_bundle, limit, asked):
    path = session_bundle.path / session_bundle.artifact("openvino", "fp32").files[0].path
    model = openvino_engine.read_network(path, "a test")
    model.reshape([1, *session_bundle.manifest.input.size, 3])
    compiled = openvino_engine.compile_network(model, "CPU", "a test", threads=asked)
    if expected := asked or limit:
        assert compiled.get_property("INFERENCE_NUM_THREADS") == expected


def test_a_tuned_files_own_number_of_threads_comes_before_a_quota(session_bundle, limit):
    tuned = replace(session_bundle.artifact("onnxruntime", "fp32"), precision="tuned", execution=Execution(threads=2))
    engine = engines.load_engine(session_bundle, tuned, engines.EngineOptions())
    assert engine._session.get_session_options().intra_op_num_threads == 2


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_model_is_named(tmp_path, engine):
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    open_file = onnxruntime_engine.open_session if engine == "onnxruntime" else openvino_engine.read_network
    with pytest.raises(EngineError, match=r"text\.onnx"):
        open_file(path, "a test")


def test_a_device_that_openvino_lacks_is_an_error_that_lists_those_at_hand(session_bundle):
    path = session_bundle.path / session_bundle.artifact("openvino", "fp32").files[0].path
    model = openvino_engine.read_network(path, "a test")
    with pytest.raises(EngineError, match=r"for NPU \(devices here: .*CPU"):
        openvino_engine.compile_network(model, "NPU", "a test")
