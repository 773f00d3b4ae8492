"""Plans are really built where a TensorRT library is installed, as .ci/run does; running one takes a GPU."""

import dataclasses
import types

import pytest

from reid_edge.bundle import open_bundle
from reid_edge.errors import (
    BundleCorruptError,
    EngineError,
    EngineUnavailableError,
    ParityError,
    PlanMismatchError,
)
from reid_edge.export import tensorrt as builder
from reid_edge.export.tensorrt import build_into_bundle, count_precisions, why_not_here
from reid_edge.manifest import Parity, PlanStamp
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines import tensorrt as tensorrt_engine
from reid_edge.runtime.engines.tensorrt import Gpu, check_stamp

needs_library = pytest.mark.skipif(why_not_here() is not None, reason=f"no plan can be built here: {why_not_here()}")
STAMP = PlanStamp(
    library="tensorrt",
    version="10.3.0",
    device="Orin",
    compute_capability="8.7",
    built_precision={},
    batches=(1, 8, 32),
)


@needs_library
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_is_built_and_stamped(session_bundle, precision):
    artifact = session_bundle.artifact("tensorrt", precision)
    assert artifact.size_bytes > 500_000
    assert session_bundle.read(artifact.files[0])[:4] != b"\0\0\0\0"
    assert artifact.plan.version == tensorrt_engine.load_library(artifact.plan.library).__version__
    assert artifact.plan.batches == (1, 8, 32)


@needs_library
def test_plans_are_added_to_a_bundle_on_the_device(bundle_copy):
    built = build_into_bundle(bundle_copy, ["fp16"], max_batch=4, on_step=lambda: None)
    artifact = open_bundle(bundle_copy.path).artifact("tensorrt", "fp16")
    assert artifact == built.artifact("tensorrt", "fp16")
    assert artifact.plan.batches == (1, 4, 4)
    bundle_copy.read(artifact.files[0])
    plans = [path.name for path in (bundle_copy.path / "tensorrt").iterdir()]
    listed = [held.files[0].path for held in built.manifest.artifacts if held.engine == "tensorrt"]
    assert sorted(f"tensorrt/{name}" for name in plans) == sorted(listed)


@needs_library
def test_a_build_that_fails_leaves_the_bundle_as_it_was(bundle_copy):
    before = {path: path.read_bytes() for path in bundle_copy.path.rglob("*") if path.is_file()}
    (bundle_copy.path / "model.fp16.onnx").write_bytes(b"changed")
    before[bundle_copy.path / "model.fp16.onnx"] = b"changed"
    with pytest.raises(BundleCorruptError):
        build_into_bundle(bundle_copy, ["fp32", "fp16"], max_batch=2, on_step=lambda: None)
    assert {path: path.read_bytes() for path in bundle_copy.path.rglob("*") if path.is_file()} == before


@needs_library
@pytest.mark.parametrize(("cosine", "right"), [(0.99, True), (0.9, False)])
def test_a_plan_that_computes_something_else_on_the_gpu_is_refused(bundle_copy, monkeypatch, cosine, right):
    """The GPU is pretended; the plan is real."""
    parity = Parity(engine="pretended", cosine_min=cosine, max_abs_diff=0.1, batches=(1, 2, 32))
    monkeypatch.setattr(builder, "_runs_here", lambda: True)
    monkeypatch.setattr(builder, "verify_artifact", lambda *_arguments: parity)
    if right:
        built = build_into_bundle(bundle_copy, ["int8"], max_batch=None, on_step=lambda: None)
        assert built.artifact("tensorrt", "int8").parity == parity
    else:
        with pytest.raises(ParityError, match=r"0\.900000, at least 0\.96"):
            build_into_bundle(bundle_copy, ["int8"], max_batch=None, on_step=lambda: None)
        assert open_bundle(bundle_copy.path).manifest == bundle_copy.manifest


@needs_library
def test_an_onnx_file_that_does_not_parse_is_an_error():
    with pytest.raises(EngineError, match=r"cannot parse bad\.onnx"):
        builder.build_plan(b"no model", name="bad.onnx", max_batch=4)


@needs_library
def test_without_a_gpu_a_plan_is_refused_with_the_reason(session_bundle):
    if tensorrt_engine.find_gpu() is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineUnavailableError, match="need a GPU"):
        Extractor(session_bundle, engine="tensorrt", precision="fp16")


def _no_library(name):
    raise ImportError(name)


def test_without_a_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tensorrt_engine.importlib, "import_module", _no_library)
    obstacle = why_not_here()
    assert isinstance(obstacle, EngineUnavailableError)
    assert "JetPack" in str(obstacle)
    assert "reid-edge[tensorrt]" in str(obstacle)


def test_full_tensorrt_without_a_gpu_says_to_build_on_the_device(monkeypatch):
    monkeypatch.setattr(builder, "load_library", lambda: types.SimpleNamespace(__name__="tensorrt"))
    monkeypatch.setattr(builder, "find_gpu", lambda: None)
    assert "reid-edge build BUNDLE --engine tensorrt" in str(why_not_here())


def test_a_plan_runs_only_where_it_was_built():
    here = types.SimpleNamespace(__version__="10.3.0")
    check_stamp(STAMP, here, Gpu("Orin", "8.7"))
    with pytest.raises(PlanMismatchError, match=r"built with tensorrt 10\.3\.0, here is 11\.0\.0.*reid-edge build"):
        check_stamp(STAMP, types.SimpleNamespace(__version__="11.0.0"), Gpu("Orin", "8.7"))
    for gpu in (Gpu("Orin Nano", "8.7"), Gpu("Orin", "8.6")):
        with pytest.raises(PlanMismatchError, match=r"built for Orin \(compute capability 8\.7\).*reid-edge build"):
            check_stamp(STAMP, here, gpu)


def test_a_plan_built_without_a_gpu_is_meant_for_any():
    anywhere = dataclasses.replace(STAMP, library="tensorrt_rtx", device="", compute_capability="")
    check_stamp(anywhere, types.SimpleNamespace(__version__="10.3.0"), Gpu("RTX 4090", "8.9"))


def test_built_precisions_are_counted_from_the_inspectors_json():
    """As the TensorRT developer guide shows it for LayerInformationFormat.JSON."""
    inspection = """{"Layers": [
        {"Name": "conv1", "Outputs": [{"Name": "a", "Format/Datatype": "Channel major where C % 8 == 0 FP16"}]},
        {"Name": "conv2", "Outputs": [{"Name": "b", "Format/Datatype": "Row major linear FP32"}]},
        {"Name": "conv3", "Outputs": [{"Name": "c", "Format/Datatype": "Row major linear FP32"}]},
        "a name only"], "Bindings": ["crops", "features"]}"""
    assert count_precisions(inspection) == {"FP16": 1, "FP32": 2}
