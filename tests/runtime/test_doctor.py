"""The doctor reports what is broken, and never breaks by it."""

import json
import os
import subprocess
import sys

import pytest

from reid_edge.runtime import doctor
from reid_edge.runtime.doctor import examine
from tests.gpu.fixtures import install
from tests.gpu.tensorrt import Fake

#: What modules say that were built for another NumPy, another Python, or whose libraries are missing.
BROKEN = {
    "cv2": "raise ImportError('numpy.core.multiarray failed to import')",
    "openvino": "raise ImportError('libopenvino.so.2620: cannot open shared object file')",
    "onnxruntime": "raise RuntimeError('CPU dispatcher tracer already initialized')",
    "tensorrt": "raise AttributeError('_ARRAY_API not found')",
}


def found(subject):
    (line,) = [line for line in examine() if line.subject == subject]
    return line


def test_broken_packages_are_reported_by_the_command_and_the_rest_with_them(tmp_path):
    for name, code in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    shown = subprocess.run(
        [sys.executable, "-m", "reid_edge", "doctor"], env=environment, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "broken" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
    code = "import json, reid_edge.runtime.doctor as d; print(json.dumps([vars(line) for line in d.examine()]))"
    listed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    lines = {line["subject"]: line for line in json.loads(listed.stdout)}
    assert "numpy.core.multiarray" in lines["OpenCV"]["found"]
    assert "numpy<2" in lines["OpenCV"]["advice"]
    assert "libopenvino" in lines["OpenVINO"]["found"]
    assert "already initialized" in lines["ONNX Runtime"]["found"]
    assert "_ARRAY_API" in lines["TensorRT"]["advice"]
    assert lines["CPU"]["found"]


def test_a_function_that_fails_in_any_way_costs_its_line_only(monkeypatch):
    def fails():
        raise ZeroDivisionError("of a driver")

    monkeypatch.setattr(doctor, "_gpu", fails)
    assert found("GPU (CUDA)").found == "broken: ZeroDivisionError: of a driver"
    assert found("CPU").found


def test_the_gpu_is_described(library):
    assert found("GPU (CUDA)").found == "Orin, compute capability 8.7, 8 multiprocessors, 8.0 GiB, driver for CUDA 12.6"
    assert found("TensorRT").found == "tensorrt 10.3.0"
    assert found("TensorRT").advice == ""


def test_a_gpu_that_this_user_may_not_use_is_reported_with_the_remedy(driver, monkeypatch):
    monkeypatch.setattr("reid_edge.system.jetson.describe_jetson", lambda: {"model": "Jetson Orin Nano"})
    driver.fail("cuInit", 304)
    assert "usermod -aG video,render" in found("GPU (CUDA)").advice


def test_on_a_machine_without_an_nvidia_gpu_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr("reid_edge.runtime.cuda.LIBRARY", "libcuda-is-not-here.so")
    monkeypatch.setattr("reid_edge.system.device.list_gpus", lambda: ("Intel GPU 9A49, driver i915",))
    assert (found("GPU (CUDA)").found, found("GPU (CUDA)").advice) == ("none found", "")


@pytest.mark.parametrize(("version", "words"), [("8.6.2", "JetPack 6.1"), ("10.3.0", "")])
def test_a_tensorrt_that_is_too_old_is_reported(driver, monkeypatch, version, words):
    install(Fake(driver, version=version), monkeypatch)
    assert words in found("TensorRT").advice
    assert ("cannot be used" in found("TensorRT").found) == bool(words)
