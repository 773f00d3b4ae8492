import importlib.util
import json
import math
import platform

import numpy as np
import pytest

from reid_edge.benchmark import memory_bandwidth
from reid_edge.benchmark.peak_kernels import numpy_kernels
from reid_edge.benchmark.peak_onnxruntime import onnxruntime_kernels
from reid_edge.benchmark.peak_openvino import openvino_kernels
from reid_edge.benchmark.process import run_module
from reid_edge.benchmark.roofline import installed_kernels, measure_peaks, measure_roofline
from reid_edge.errors import EngineError, UsageError
from reid_edge.system.cpu import cpu_flags
from tests.system.recorded_trees import NUC, plant

X86 = platform.machine() == "x86_64"


@pytest.fixture(scope="module")
def roofline():
    return measure_roofline((None, 1), seconds=1.5)


def test_every_arithmetic_has_a_peak_for_each_number_of_threads(roofline):
    kinds = [(peak.arithmetic, peak.threads) for peak in roofline.peaks]
    assert len(set(kinds)) == len(kinds)
    assert {("fp32", 1), ("int8", 1)} <= set(kinds)
    assert all(peak.gflops > 1 and ("OpenVINO" in peak.how or "native" in peak.how) for peak in roofline.peaks)


def test_narrow_arithmetic_is_the_faster_one_where_the_cpu_has_units_for_it(roofline):
    if not cpu_flags() & {"avx512_vnni", "avx_vnni"}:
        pytest.skip("no VNNI here")
    gflops = {peak.arithmetic: peak.gflops for peak in roofline.peaks if peak.threads == 1}
    assert gflops["int8"] > 1.5 * gflops["fp32"]


def test_bandwidth_is_that_of_memory(roofline):
    assert 0.5 < roofline.bandwidth_gbs < 5000
    assert roofline.bandwidth_how.startswith("STREAM ")


def test_openvino_computes_what_is_counted():
    kernels = [build(2) for build in openvino_kernels(1)[:3]]
    three = 3 * 3 * 256 * 256 * (18**2 + 16**2 + 14**2)
    one = 512 * 512 * 3 * 14**2
    products = 3 * 128 * 1024 * 1024
    assert [kernel.operations for kernel in kernels] == [2 * 2 * mult_adds for mult_adds in (three, one, products)]
    assert [kernel.run()[0].shape for kernel in kernels] == [(2, 256, 14, 14), (2, 512, 14, 14), (256, 1024)]
    assert {kernel.threads for kernel in kernels} == {1}


@pytest.mark.skipif(not X86, reason="Arm's CPUs compute in half precision")
def test_what_openvino_runs_in_another_type_than_asked_for_is_no_peak():
    # On x86 without AVX512-FP16 the plugin takes the hint f16 and computes in bf16 or f32.
    if "avx512_fp16" in cpu_flags():
        pytest.skip("this CPU computes in half precision")
    assert "fp16" not in {peak.arithmetic for peak in measure_peaks(1, seconds=0.5)}


def test_a_limit_of_the_instruction_set_shows_in_the_peaks():
    if not {"avx512f", "avx512_bf16"} <= cpu_flags():
        pytest.skip("nothing to take away")
    limited = run_module("reid_edge.benchmark.roofline", "peaks", 1, 0.2, environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    arithmetics = {peak["arithmetic"] for peak in json.loads(limited.stdout)}
    assert "fp32" in arithmetics
    assert "bf16" not in arithmetics


@pytest.mark.parametrize("arithmetic", ["fp32", "int8"])
def test_onnxruntime_computes_what_is_counted(arithmetic):
    kernel = next(k for k in (build(2) for build in onnxruntime_kernels(1)) if k.arithmetic == arithmetic)
    (product,) = kernel.run()
    assert kernel.operations == 2 * 256 * 512 * 512
    assert product.shape == (256, 512)
    assert product.dtype == (np.int32 if arithmetic == "int8" else np.float32)
    assert product.max() > 0


def test_numpy_computes_what_is_counted():
    kernels = [build(1) for build in numpy_kernels(2)]
    assert [kernel.operations for kernel in kernels] == [2 * 128 * size * size for size in (512, 1024)]
    assert kernels[1].run().shape == (128, 1024)


def test_without_openvino_the_next_engine_is_measured(monkeypatch):
    found = importlib.util.find_spec
    missing = {"openvino"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    assert "ONNX Runtime" in installed_kernels(1)[0](1).how
    missing.add("onnx")
    assert "NumPy" in installed_kernels(1)[0](1).how


def test_a_process_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('this NumPy is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"measuring peaks failed \(exit status 1\)[\s\S]*this NumPy is broken"):
        measure_roofline((1,), seconds=0.1)


def test_no_threads_are_refused_before_anything_runs():
    with pytest.raises(UsageError, match=r"at least 1 thread, got \[2, 0\]"):
        measure_roofline((2, 0))


def test_arrays_are_four_times_the_last_cache_or_what_memory_allows(tmp_path):
    _, how = memory_bandwidth.measure_bandwidth(0.01, 1, plant(tmp_path, NUC))
    assert "3 arrays of 64 MiB, 1 thread," in how  # 4 × 8 MiB would be less than the least
    plant(tmp_path, {"proc/meminfo": "MemTotal: 200000 kB\nMemAvailable: 98304 kB\n"})
    rate, how = memory_bandwidth.measure_bandwidth(0.01, 1, tmp_path)
    assert "3 arrays of 16 MiB, less than 4 times the caches" in how
    assert math.isfinite(rate) and rate > 0
