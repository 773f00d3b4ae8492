import json

import pytest

from reid_edge.export.tensorrt import build_plan
from reid_edge.runtime.compiled_cache import open_cache
from reid_edge.runtime.extractor import default_cache_dir


@pytest.fixture
def onnx(session_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return session_bundle.read(session_bundle.artifact("onnxruntime", "fp32").files[0])


def build(onnx):
    return build_plan(onnx, name="model.onnx", max_batch=4)


def entries():
    return list((default_cache_dir() / "compiled").glob("*.compiled"))


def test_kernels_are_timed_once_for_a_gpu(library, onnx):
    plans = [build(onnx)[0] for _ in range(2)]
    assert plans[0] == plans[1]
    assert library.measured == 1
    assert len(entries()) == 1


def test_another_gpu_or_release_times_its_own(library, driver, onnx):
    build(onnx)
    driver.gpu("Orin", "8.7", 16, 16 << 30)
    build(onnx)
    library.module.__version__ = "10.16.1"
    build(onnx)
    assert library.measured == 3
    assert len(entries()) == 3


def test_times_that_tensorrt_refuses_are_thrown_away(library, onnx, caplog):
    build(onnx)
    (path,) = entries()
    open_cache(path.parent).store(path.stem, json.dumps(["foreign"]).encode())
    build(onnx)
    assert library.measured == 2
    assert "TensorRT refuses it" in caplog.text
    build(onnx)
    assert library.measured == 2


def test_damaged_times_are_not_given_to_tensorrt(library, onnx, caplog):
    build(onnx)
    (path,) = entries()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    build(onnx)
    assert library.measured == 2
    assert "its checksum is wrong" in caplog.text


def test_a_failed_build_keeps_the_times(library, onnx):
    build(onnx)
    library.refusals["build_serialized_network"] = "no"
    with pytest.raises(Exception, match="could not make a plan"):
        build(onnx)
    library.refusals.clear()
    build(onnx)
    assert library.measured == 1


def test_rtx_has_no_times_to_keep(rtx, onnx):
    build(onnx)
    assert entries() == []
