"""Plans are really built where a TensorRT library is installed, as .ci/run does; running one takes a GPU."""

import dataclasses
import json
import sys
import types

import onnx
import pytest
import torch

from reid_edge.bundle import open_bundle
from reid_edge.errors import (
    BundleCorruptError,
    EngineError,
    EngineUnavailableError,
    ParityError,
    PlanMismatchError,
)
from reid_edge.export import tensorrt as builder
from reid_edge.export.onnx import export_onnx
from reid_edge.export.plan_inspection import count_precisions
from reid_edge.export.tensorrt import build_into_bundle, plan_precisions, why_not_here
from reid_edge.manifest import Parity, PlanStamp
from reid_edge.runtime import Extractor
from reid_edge.runtime.cuda import Gpu, find_gpu
from reid_edge.runtime.engines.tensorrt import check_stamp
from reid_edge.runtime.tensorrt_library import load_library

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
@pytest.mark.parametrize("precision", plan_precisions())
def test_a_plan_is_built_and_stamped(session_bundle, precision):
    artifact = session_bundle.artifact("tensorrt", precision)
    assert artifact.size_bytes > 500_000
    assert session_bundle.read(artifact.files[0])[:4] != b"\0\0\0\0"
    assert artifact.plan.version == load_library(artifact.plan.library).__version__
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
@pytest.mark.parametrize(("cosine", "right"), [(0.9999, True), (0.9, False)])
def test_a_plan_that_computes_something_else_on_the_gpu_is_refused(bundle_copy, monkeypatch, cosine, right):
    """The GPU is pretended; the plan is real."""
    parity = Parity(engine="pretended", cosine_min=cosine, max_abs_diff=0.1, batches=(1, 2, 32))
    monkeypatch.setattr(builder, "_runs_here", lambda: True)
    monkeypatch.setattr(builder, "verify_artifact", lambda *_arguments: parity)
    if right:
        built = build_into_bundle(bundle_copy, ["fp16"], max_batch=None, on_step=lambda: None)
        assert built.artifact("tensorrt", "fp16").parity == parity
    else:
        with pytest.raises(ParityError, match=r"0\.900000, at least 0\.99"):
            build_into_bundle(bundle_copy, ["fp16"], max_batch=None, on_step=lambda: None)
        assert open_bundle(bundle_copy.path).manifest == bundle_copy.manifest


#: onnx-tensorrt's docs/operators.md for TensorRT 10.0 to 10.3.
OPSETS_OF_TENSORRT_10_3 = range(9, 21)


def test_the_opset_is_one_that_tensorrt_10_3_parses_whatever_torch_would_choose(session_bundle, monkeypatch, tmp_path):
    asked = {}

    def export(*_arguments, **how):
        asked.update(how)
        raise InterruptedError

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(InterruptedError):
        export_onnx(types.SimpleNamespace(example=lambda: None), tmp_path / "model.onnx")
    assert asked["opset_version"] in OPSETS_OF_TENSORRT_10_3
    for artifact in session_bundle.manifest.artifacts:
        if artifact.engine == "onnxruntime":
            (opset,) = onnx.load_from_string(session_bundle.read(artifact.files[0])).opset_import
            assert opset.version in OPSETS_OF_TENSORRT_10_3, artifact.name


@needs_library
def test_an_onnx_file_that_does_not_parse_is_an_error():
    with pytest.raises(EngineError, match=r"cannot parse bad\.onnx"):
        builder.build_plan(b"no model", name="bad.onnx", max_batch=4)


@needs_library
def test_without_a_gpu_a_plan_is_refused_with_the_reason(session_bundle):
    if find_gpu() is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineUnavailableError, match="need a GPU"):
        Extractor(session_bundle, engine="tensorrt", precision="fp16")


def test_without_a_library_the_error_says_what_to_install(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    obstacle = why_not_here()
    assert isinstance(obstacle, EngineUnavailableError)
    assert "JetPack" in str(obstacle)
    assert "reid-edge[tensorrt]" in str(obstacle)


def test_full_tensorrt_without_a_gpu_says_to_build_on_the_device(library, driver):
    driver.gpu(count=0)
    assert "reid-edge build BUNDLE --engine tensorrt" in str(why_not_here())
    assert "video,render" in str(why_not_here())


def test_a_plan_runs_only_where_it_was_built():
    here = types.SimpleNamespace(__name__="tensorrt", __version__="10.3.0")
    check_stamp(STAMP, here, Gpu("Orin", "8.7"))
    with pytest.raises(PlanMismatchError, match=r"built with tensorrt 10\.3\.0, here is 11\.0\.0.*reid-edge build"):
        check_stamp(STAMP, types.SimpleNamespace(__name__="tensorrt", __version__="11.0.0"), Gpu("Orin", "8.7"))
    for gpu in (Gpu("Orin Nano", "8.7"), Gpu("Orin", "8.6")):
        with pytest.raises(PlanMismatchError, match=r"built for Orin, compute capability 8\.7.*reid-edge build"):
            check_stamp(STAMP, here, gpu)


def test_a_plan_built_without_a_gpu_is_meant_for_any():
    anywhere = dataclasses.replace(STAMP, library="tensorrt_rtx", device="", compute_capability="")
    check_stamp(anywhere, types.SimpleNamespace(__name__="tensorrt_rtx", __version__="10.3.0"), Gpu("RTX 4090", "8.9"))


def inspection(*layers):
    return json.dumps({"Layers": [*layers, "a name only"], "Bindings": ["crops", "features"]})


def layer(words, **facts):
    return {"Name": "conv", "Outputs": [{"Name": "a", "Format/Datatype": words}], **facts}


def test_built_precisions_are_read_wherever_the_inspector_puts_the_type():
    """The words of TensorRT's engine explorer, which reads the same JSON; newer releases have a field for the type."""
    words = (
        "Channel major FP16 format where channel % 8 == 0",
        "Two wide channel vectorized row major FP16 format",
        "Row major linear FP32",
        "Row major linear FP16 format",
        "Four wide channel vectorized row major Int8 format",
        "Thirty-two wide channel vectorized row major Int8 format",
        "Row major Int8 format",
        "Row major linear BFP16 format",
    )
    assert count_precisions(inspection(*map(layer, words))) == {"FP16": 3, "FP32": 1, "INT8": 3, "BF16": 1}
    newer = {"Name": "conv", "Outputs": [{"Name": "a", "Format": "Row major linear", "Datatype": "Half"}]}
    assert count_precisions(inspection(newer)) == {"FP16": 1}


@pytest.mark.parametrize(
    "words", ['{"Layers": [{"Name": "a\\x"}]}', "", "null", '{"Bindings": []}', '{"Layers": null}']
)
def test_words_of_the_inspector_that_are_no_json_lose_no_plan(words, caplog):
    assert count_precisions(words) == {}
    assert "is not known" in caplog.text


def test_where_the_shape_is_not_known_the_weights_tell_the_type():
    unknown = "N/A due to dynamic shapes"
    found = count_precisions(inspection(layer(unknown, Weights={"Type": "Half", "Count": 64}), layer(unknown)))
    assert found == {"FP16": 1, "unknown": 1}
