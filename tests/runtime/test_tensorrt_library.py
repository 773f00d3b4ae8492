"""Which TensorRT is taken, and what is refused with a reason."""

import sys
import types

import pytest

from reid_edge.errors import EngineUnavailableError, PlanMismatchError
from reid_edge.export.tensorrt import build_into_bundle, plan_precisions, why_not_here
from reid_edge.runtime import Extractor
from reid_edge.runtime.tensorrt_library import load_library
from tests.gpu import tensorrt
from tests.gpu.fixtures import install


def test_tensorrt_of_jetpack_6_0_is_refused_with_the_reason(driver, monkeypatch):
    install(tensorrt.Fake(driver, version="8.6.2"), monkeypatch)
    with pytest.raises(EngineUnavailableError, match=r"TensorRT 8\.6\.2 is too old \(JetPack 6\.0.*JetPack 6\.1"):
        load_library()
    assert "too old" in str(why_not_here())


def test_a_library_that_is_there_and_cannot_be_loaded_says_why(tmp_path, monkeypatch):
    """As where libnvinfer is missing, or was built for another Python or numpy."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    (tmp_path / "tensorrt_rtx.py").write_text("raise AttributeError('_ARRAY_API not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineUnavailableError, match=r"tensorrt is installed, but cannot.*libnvinfer.*_ARRAY_API"):
        load_library()


def test_a_dependency_of_the_library_that_is_missing_is_named(tmp_path, monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "tensorrt.py").write_text("import tensorrt_libs_that_are_missing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineUnavailableError, match="tensorrt_libs_that_are_missing"):
        load_library("tensorrt")


def test_a_folder_of_that_name_is_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EngineUnavailableError, match="no TensorRT library is installed"):
        load_library()


@pytest.mark.parametrize(
    ("name", "capability"),
    [("NVIDIA H100", "9.0"), ("Tesla T4", "7.5"), ("NVIDIA A100", "8.0"), ("Orin", "8.7"), ("NVIDIA Thor", "11.0")],
)
def test_tensorrt_rtx_is_refused_on_cards_that_it_is_not_for(bundle_copy, rtx, driver, name, capability):
    driver.gpu(count=0)  # a plan that is for any card
    built = build_into_bundle(bundle_copy, ["fp16"], max_batch=2, on_step=lambda: None)
    driver.gpu(name, capability, 16, 8 << 30)
    assert f"not on {name} ({capability})" in str(why_not_here())
    with pytest.raises(EngineUnavailableError, match="Use the full library"):
        build_into_bundle(built, ["fp16"], max_batch=2, on_step=lambda: None)
    with pytest.raises(PlanMismatchError, match="since Ampere"):
        Extractor(bundle_copy.path, engine="tensorrt", precision="fp16")


def test_tensorrt_rtx_is_offered_no_int8(bundle_copy, rtx):
    assert plan_precisions() == ("fp32", "fp16")
    with pytest.raises(EngineUnavailableError, match="no convolutions in INT8: choose fp16"):
        build_into_bundle(bundle_copy, ["int8"], max_batch=2, on_step=lambda: None)


def test_the_full_library_has_int8(library):
    assert plan_precisions() == ("fp32", "fp16", "int8")
