"""Devices of OpenVINO and providers of ONNX Runtime: which are taken, what they are given, and what is refused."""

import types

import numpy as np
import onnxruntime
import pytest

from reid_edge.errors import EngineError, EngineUnavailableError
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines import EngineOptions, choose_engine, load_engine
from reid_edge.runtime.engines import openvino as openvino_engine
from reid_edge.runtime.engines.onnxruntime import open_session, providers_for
from reid_edge.runtime.engines.openvino import compile_network, has_device
from tests.commands import run_command
from tests.conftest import random_crops


@pytest.mark.parametrize(
    ("device", "available", "there"),
    [
        ("CPU", "CPU", True),
        ("GPU", "CPU GPU", True),
        ("GPU.0", "CPU GPU", True),
        ("GPU.1", "CPU GPU", False),
        ("GPU", "CPU GPU.0 GPU.1", True),
        ("GPU.1", "CPU GPU.0 GPU.1", True),
        ("GPU.2", "CPU GPU.0 GPU.1", False),
        ("NPU", "CPU GPU", False),
        ("AUTO", "CPU", True),
        ("AUTO:GPU.1,CPU", "CPU GPU.0 GPU.1", True),
        ("AUTO:NPU,CPU", "CPU", False),
        ("HETERO:GPU,CPU", "CPU GPU", True),
        ("TPU", "CPU", False),
    ],
)
def test_openvinos_names_of_devices(device, available, there):
    assert has_device(available.split(), device) is there


def test_a_plugin_gets_only_properties_that_it_knows(monkeypatch):
    """As the NPU's, which knows neither threads nor streams and refuses what it does not know."""
    given = {}

    def compile_model(_model, _device, properties):
        given.update(properties)

    core = types.SimpleNamespace(
        compile_model=compile_model,
        get_property=lambda device, _name: {"PERFORMANCE_HINT": "RW", "INFERENCE_PRECISION_HINT": "RW"},
    )
    monkeypatch.setattr(openvino_engine, "openvino_core", lambda _purpose: core)
    properties = {"INFERENCE_PRECISION_HINT": "f16", "NUM_STREAMS": 2}
    compile_network(None, "NPU", "a test", threads=3, properties=properties)
    assert given == {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f16"}
    compile_network(None, "CPU", "a test", threads=3, properties=properties)
    assert given["INFERENCE_NUM_THREADS"] == 3


def test_openvinos_auto_computes_the_same_features(session_bundle, rng):
    crops = random_crops(rng, 3)
    auto = Extractor(session_bundle, engine="openvino", precision="fp32", device="AUTO")
    assert auto.engine_description.endswith("AUTO")
    plain = Extractor(session_bundle, engine="openvino", precision="fp32")
    np.testing.assert_allclose(auto(crops), plain(crops), atol=1e-5)


def test_on_another_device_fp16_comes_first_and_engines_of_the_cpu_are_passed_over(session_bundle):
    artifact, _engine, _cosine = choose_engine(session_bundle, "auto", "auto", EngineOptions(device="AUTO"))
    assert artifact.name == "openvino/fp16"
    with pytest.raises(EngineError, match=r"no device 'GPU\.7' here; it has CPU"):
        choose_engine(session_bundle, "openvino", "auto", EngineOptions(device="GPU.7"))


@pytest.mark.parametrize(
    ("device", "chosen"),
    [
        ("CPU", ["CPUExecutionProvider"]),
        ("cuda", [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]),
        ("CUDA.1", [("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}), "CPUExecutionProvider"]),
        (
            "TENSORRT",
            ["TensorrtExecutionProvider", ("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
        ),
    ],
)
def test_onnx_runtimes_providers_are_named_by_device(device, chosen):
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers_for(device, available) == chosen


@pytest.mark.parametrize("device", ["CUDA", "GPU", "CPU.x"])
def test_a_provider_that_is_not_here_is_refused_with_the_package_that_has_it(device):
    with pytest.raises(EngineUnavailableError, match=r"it has AZURE, CPU\. .*onnxruntime-gpu"):
        providers_for(device, ["AzureExecutionProvider", "CPUExecutionProvider"])


def test_a_provider_that_onnx_runtime_silently_leaves_is_refused(session_bundle, monkeypatch):
    """As onnxruntime-gpu does where CUDA's libraries are missing: a line on standard error, and the CPU computes."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: real(model, options, providers=["CPUExecutionProvider"]),
    )
    model = session_bundle.read(session_bundle.artifact("onnxruntime", "fp32").files[0])
    with pytest.raises(EngineUnavailableError, match="has CUDAExecutionProvider, but its libraries do not load"):
        open_session(model, "a test", device="CUDA")
    with pytest.raises(EngineUnavailableError, match="do not load"):
        load_engine(session_bundle, session_bundle.artifact("onnxruntime", "fp32"), EngineOptions(device="CUDA"))


def test_verify_takes_a_device(session_bundle):
    done = run_command("verify", session_bundle.path, "--engine", "openvino", "--device", "AUTO")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right") == 3
    assert "AUTO" in done.stdout


@pytest.mark.parametrize("device", ["cpu", "CPU.0"])
def test_the_cpu_is_named_in_any_case_and_with_its_number(session_bundle, device):
    done = run_command("verify", session_bundle.path, "--device", device)
    assert done.returncode == 0, done.stderr
    assert "not run" not in done.stdout
