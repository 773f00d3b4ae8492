"""Tuning for other devices than the CPU: what is tried, and where a tuned file is taken."""

import types
from dataclasses import replace

import onnxruntime
import pytest

from reid_edge.benchmark.protocol import Load, Loaded
from reid_edge.benchmark.worker import Worker
from reid_edge.bundle import Bundle, write_manifest
from reid_edge.cli.bundle import _bundle_facts
from reid_edge.errors import EngineUnavailableError, UsageError
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.osnet.rewrites import Rewrite
from reid_edge.progress import silent
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines import EngineOptions, choose_engine
from reid_edge.runtime.engines import openvino as openvino_engine
from reid_edge.runtime.engines.hardware import device_class_of
from reid_edge.runtime.golden import check_extractor
from reid_edge.tune import run
from reid_edge.tune.candidates import grid, plain_candidates, refinements
from reid_edge.tune.engines import tuning_engines
from reid_edge.tune.measurement import Objective
from reid_edge.tune.run import TuneOptions, tune
from reid_edge.tuning_record import Execution, Tuning
from tests.export.tiny import tiny_checkpoint


@pytest.fixture
def openvinos(monkeypatch):
    """Give OpenVINO other devices: names of the hardware by name of the device."""

    def have(**names):
        core = types.SimpleNamespace(
            available_devices=list(names), get_property=lambda device, _name: names[device.removesuffix(".0")]
        )
        monkeypatch.setattr(openvino_engine, "openvino_core", lambda _purpose: core)

    return have


@pytest.fixture
def cuda_provider(monkeypatch):
    """An ONNX Runtime with CUDA; its sessions run on the CPU, and say what ``works`` says."""

    def have(*, works):
        real = onnxruntime.InferenceSession

        def session(model, options, providers):
            held = real(model, options, providers=["CPUExecutionProvider"])
            names = [one if isinstance(one, str) else one[0] for one in providers]
            held.get_providers = lambda: names if works else ["CPUExecutionProvider"]
            return held

        providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)

    return have


def test_on_a_gpu_openvino_is_tried_in_float16_and_float32_without_streams_and_threads(openvinos):
    openvinos(CPU="a CPU", GPU="Arc A770")
    (engine,) = tuning_engines("cpu", 8, "GPU")
    candidates = grid(engine, NetworkVariant(), 32)
    assert {one.execution.streams for one in candidates} == {1}
    plain = [(one.int8, one.execution.float_type) for one in candidates if one.rewrite == Rewrite()]
    assert plain == [(False, "f16"), (True, "f16"), (False, "f32"), (True, "f32")]
    assert [one.name for one in plain_candidates(engine, 32)] == [
        "openvino, plain, fp32", "openvino, plain, fp16", "openvino, plain, int8 + fp16",
    ]  # fmt: skip
    assert {one.execution.threads for one in refinements(candidates[0], engine)} == {None}


def test_onnx_runtime_on_cuda_is_tried_with_float16_files(cuda_provider):
    cuda_provider(works=True)
    (engine,) = tuning_engines("cpu", 8, "CUDA")
    assert engine.name == "onnxruntime"
    assert engine.half_weights
    assert {(one.int8, one.execution.float_type) for one in grid(engine, NetworkVariant(), 32)} == {
        (False, "f16"), (False, "f32"),
    }  # fmt: skip
    assert [one.name for one in plain_candidates(engine, 32)][1:] == [
        "onnxruntime, plain, fp16", "onnxruntime, plain, int8",
    ]  # fmt: skip
    assert not engine.thread_counts()


@pytest.mark.parametrize(
    ("engine", "device", "reason"),
    [
        ("native", "GPU", "native has no device 'GPU'"),
        ("tensorrt", "CUDA", "tensorrt has no device 'CUDA'"),
        ("openvino", "GPU.7", r"OpenVINO has no device 'GPU\.7' here; it has CPU"),
        ("onnxruntime", "CUDA", "CUDAExecutionProvider, but its libraries do not load"),
        (
            "cpu",
            "CUDA",
            r"no engine here can be tuned on CUDA:\n  native: .*\n  openvino: .*\n  onnxruntime: .*not load",
        ),
    ],
)
def test_a_device_that_does_not_work_here_is_refused_before_any_work(tmp_path, cuda_provider, engine, device, reason):
    cuda_provider(works=False)
    with pytest.raises(EngineUnavailableError, match=reason):
        tune([tiny_checkpoint()], TuneOptions(out=tmp_path / "b", engine=engine, device=device), silent)
    assert not list(tmp_path.iterdir())


def test_a_class_holds_the_name_of_the_gpu_or_npu(openvinos, driver):
    openvinos(CPU="a CPU", GPU="Arc A770", NPU="AI Boost")
    gpu = device_class_of("openvino", "GPU.0")
    assert gpu == device_class_of("openvino", "GPU")
    assert (gpu.device, gpu.gpu) == ("GPU", "Arc A770")
    assert device_class_of("openvino", "AUTO").gpu == "Arc A770, AI Boost"
    assert device_class_of("openvino").gpu == ""
    npu = device_class_of("openvino", "NPU")
    assert npu.differences(replace(npu, gpu="")) == ["NPU: there AI Boost, here none"]
    assert npu.differences(gpu)[0] == "device: there NPU, here GPU"
    driver.gpu("NVIDIA T4", "7.5", 40, count=2)
    assert device_class_of("onnxruntime", "cuda.0") == device_class_of("onnxruntime", "CUDA")
    assert device_class_of("onnxruntime", "TENSORRT").gpu == "NVIDIA T4 with 40 multiprocessors"
    assert device_class_of("onnxruntime", "CUDA.1").gpu == "NVIDIA T4 with 40 multiprocessors"
    assert device_class_of("onnxruntime", "CUDA.2").gpu == ""
    assert device_class_of("onnxruntime", "DML").gpu == ""


def tuned_for(bundle, device_class, execution=None):
    """A bundle whose OpenVINO file in float32 has been tuned for a class of device."""
    plain = bundle.artifact("openvino", "fp32")
    tuned = replace(plain, precision="tuned", execution=execution or Execution())
    record = Tuning(device=device_class, objective="p50", constraint="none", trials=(), minutes=1.0)
    manifest = replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, tuned), tuning=record)
    return Bundle(bundle.path, manifest)


@pytest.mark.parametrize(
    ("tuned_on", "device", "taken"),
    [
        ("AUTO", "AUTO", "openvino/tuned"),
        ("AUTO", "CPU", "openvino/fp32"),
        ("CPU", "AUTO", "openvino/fp16"),
        ("CPU", "CPU", "openvino/tuned"),
    ],
)
def test_auto_takes_a_tuned_file_only_on_its_device(session_bundle, caplog, tuned_on, device, taken):
    bundle = tuned_for(session_bundle, device_class_of("openvino", tuned_on))
    artifact, *_ = choose_engine(bundle, "auto", "auto", EngineOptions(device=device))
    assert artifact.name == taken
    warned = f"tuned on another class of device (device: there {tuned_on}, here {device})" in caplog.text
    assert warned is (tuned_on != device)


def test_inspect_says_for_which_device_a_bundle_was_tuned(session_bundle):
    there = replace(device_class_of("openvino"), device="GPU.1", gpu="Arc A770", cpu="a CPU", cpus=4)
    assert _bundle_facts(tuned_for(session_bundle, there).manifest)["tuned for"] == "GPU.1: Arc A770; a CPU, 4 CPUs"
    jetson = replace(there, device="CPU", gpu="Orin", power_mode="15W (2)", cpus=1)
    facts = _bundle_facts(tuned_for(session_bundle, jetson).manifest)
    assert facts["tuned for"] == "Orin; a CPU, 1 CPU; power mode 15W (2)"
    assert _bundle_facts(session_bundle.manifest)["tuned for"] == "not tuned"


def test_a_file_tuned_for_a_gpu_or_npu_runs_on_the_cpu_where_it_is_asked_for(session_bundle):
    """In float32, for a check of the bundle: float16 is emulated there, and too far from the checkpoint."""
    bundle = tuned_for(session_bundle, device_class_of("openvino"), Execution(float_type="f16"))
    extractor = Extractor(bundle, engine="openvino", precision="tuned", cache_dir=None)
    assert check_extractor(extractor) > 0.9999


def test_what_tuning_chose_for_a_device_is_what_its_plugin_is_told(session_bundle):
    options = EngineOptions(device="GPU")
    bundle = tuned_for(session_bundle, device_class_of("openvino"))
    tuned = bundle.artifact("openvino", "tuned")
    chosen = openvino_engine._properties(replace(tuned, int8=("fc",)), tuned.execution, options)
    assert chosen == {"INFERENCE_PRECISION_HINT": "f32"}
    plain = session_bundle.artifact("openvino", "int8")
    assert openvino_engine._properties(plain, Execution(), options) == {"INFERENCE_PRECISION_HINT": "f16"}


def test_a_candidate_in_int8_is_timed_on_a_device_before_anything_has_judged_it(session_bundle, tmp_path):
    """A draft's features need not be right; float candidates are held against the golden features at once."""
    plain = session_bundle.artifact("openvino", "int8")
    candidate = replace(plain, precision="tuned", parity=None, verdict=None, int8=("fc",), execution=Execution())
    for entry in (*plain.files, session_bundle.manifest.golden):
        (tmp_path / entry.path).parent.mkdir(exist_ok=True)
        (tmp_path / entry.path).write_bytes(session_bundle.read(entry))
    write_manifest(tmp_path, replace(session_bundle.manifest, artifacts=(candidate,)))
    request = Load(bundle=str(tmp_path), engine="openvino", precision="tuned", device="AUTO", threads=None)
    assert isinstance(Worker().answer(request), Loaded)


@pytest.mark.parametrize(
    ("counted", "device", "reason"),
    [
        ("cpu", "CUDA", "--objective energy: No energy: RAPL does not count the GPU"),
        ("gpu", "AUTO", "--objective energy: No energy"),
    ],
)
def test_energy_that_is_not_counted_is_refused_before_any_work(
    tmp_path, monkeypatch, cuda_provider, counted, device, reason
):
    cuda_provider(works=True)
    monkeypatch.setattr(run, "find_meter", lambda: types.SimpleNamespace(source="RAPL", hardware={counted}))
    monkeypatch.setattr(run, "missing_reason", lambda: "No energy of the CPU.")
    options = TuneOptions(out=tmp_path / "b", device=device, objective=Objective(goal="energy"))
    with pytest.raises(UsageError, match=reason):
        tune([tiny_checkpoint()], options, silent)
    assert not list(tmp_path.iterdir())
