"""INT8 files whose floats are float16, for TensorRT; ONNX Runtime runs them here."""

import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from reid_edge.bundle import open_bundle
from reid_edge.errors import EngineError, MissingExtraError
from reid_edge.export import half_floats
from reid_edge.export import tensorrt as builder
from reid_edge.export.calibration import shipped_set
from reid_edge.export.half_floats import checked_half_floats, with_half_floats
from reid_edge.export.tensorrt import build_into_bundle, why_not_here
from reid_edge.features import row_cosines
from reid_edge.manifest import Parity
from reid_edge.osnet.shipped import find_checkpoint
from reid_edge.runtime.agreement import cosine_limit
from reid_edge.runtime.engines import EngineOptions
from reid_edge.runtime.engines.onnxruntime import OnnxRuntimeEngine
from reid_edge.runtime.extractor import as_input
from reid_edge.runtime.golden import verify_artifact
from reid_edge.runtime.tensorrt_library import library_log, load_library
from reid_edge.runtime.verdict import judge


@pytest.fixture(scope="module", params=["session_bundle", "new_site_bundle"])
def shipped(request):
    """Bundles of all checkpoints that ship."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def int8(shipped):
    """The network's INT8 file, in float32 and in float16."""
    entry = shipped.artifact("onnxruntime", "int8").files[0]
    content = shipped.read(entry)
    return content, with_half_floats(content, entry.path)


def features(bundle, content, crops):
    artifact = bundle.artifact("onnxruntime", "int8")
    engine = OnnxRuntimeEngine({"model.onnx": content}, artifact, EngineOptions(as_written=True))
    return np.concatenate([engine.infer(as_input(crop[None], bundle.manifest.input)) for crop in crops])


def types_of(model):
    """Types of all tensors, by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.input, *graph.output)}
    return values | {one.name: one.data_type for one in graph.initializer}


def test_every_layer_of_the_network_is_in_float16_and_only_the_pixels_and_features_are_not(int8):
    model = onnx.load_from_string(int8[1])
    types = types_of(model)
    for node in model.graph.node:
        inputs = {types[tensor] for tensor in node.input} - {TensorProto.INT8, TensorProto.INT64, TensorProto.UINT8}
        if node.op_type == "Cast":
            continue
        if node.name.startswith("/"):  # pixels minus mean
            assert inputs == {TensorProto.FLOAT}, node.name
        else:
            assert inputs == {TensorProto.FLOAT16}, node.name
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 3
    before = onnx.load_from_string(int8[0])
    assert (model.graph.input, model.graph.output) == (before.graph.input, before.graph.output)
    assert model.opset_import == before.opset_import
    weights = [
        {one.name for one in each.graph.initializer if one.data_type == TensorProto.INT8} for each in (model, before)
    ]
    assert weights[0] == weights[1]


def test_its_features_are_as_close_to_the_checkpoints_as_those_of_float32(shipped, int8):
    crops, expected = shipped.golden()
    limit = cosine_limit(shipped.manifest, shipped.artifact("onnxruntime", "int8"))
    whole, half = (row_cosines(features(shipped, one, crops), expected).min() for one in int8)
    assert half > limit
    assert half > whole - 0.005
    assert checked_half_floats(shipped, shipped.artifact("onnxruntime", "int8")) == int8[1]


@pytest.mark.slow
def test_its_ranking_of_crops_that_did_not_calibrate_is_accepted(shipped, int8):
    checkpoint = find_checkpoint(None, 0.25, new_site="new_site" in shipped.path.name)
    crops = shipped_set(checkpoint, checkpoint.info.size).held_out
    plain = shipped.artifact("onnxruntime", "fp32")
    exact = features(shipped, shipped.read(plain.files[0]), crops)
    verdicts = [judge(exact, features(shipped, one, crops), golden_cosine=1.0, crops="held out") for one in int8]
    assert [one.reasons for one in verdicts] == [(), ()]
    assert verdicts[1].ranking > verdicts[0].ranking - 0.01


@pytest.mark.skipif(why_not_here() is not None, reason=f"no plan can be built here: {why_not_here()}")
def test_tensorrts_parser_makes_layers_in_float16_of_it(int8):
    """TensorRT-RTX parses INT8, though it builds no INT8 convolutions."""
    library = load_library()
    network = library.Builder(library_log(library)).create_network(builder._network_flags(library))
    _parser = builder._parsed(library, network, int8[1], "half.onnx")
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    computing = [one for one in layers if one.type in (library.LayerType.CONVOLUTION, library.LayerType.DEQUANTIZE)]
    assert len(computing) > 400
    assert {one.get_output(0).dtype for one in computing} == {library.DataType.HALF}


def small(*, opset=20, scale=0.1, weight=1.0):
    """A network of one layer whose input is float32: Q, DQ, convolution."""
    constants = {
        "scale": np.float32(scale), "zero": np.int8(0), "weight": np.full((2, 3, 1, 1), weight, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["crops", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="dq"),
        helper.make_node("Conv", ["dq", "weight"], ["features"], name="fc/Conv"),
    ]
    shapes = {"crops": ["batch", 3, 4, 4], "features": ["batch", 2, 4, 4]}
    crops, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [crops], [out], held)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()


def test_an_input_that_is_normalised_by_the_caller_is_cast_first(rng):
    halved = with_half_floats(small(), "small.onnx")
    crops = rng.uniform(-2, 2, (2, 3, 4, 4)).astype(np.float32)
    whole, half = (
        onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]).run(None, {"crops": crops})[0]
        for one in (small(), halved)
    )
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, atol=0.11)  # a value between two steps may go to the other one
    assert onnx.load_from_string(halved).graph.node[0].op_type == "Cast"


def test_a_scale_too_small_for_float16_stays_above_0():
    """TensorRT refuses scales that are not positive."""
    held = onnx.load_from_string(with_half_floats(small(scale=1e-9), "small.onnx")).graph.initializer
    (scale,) = (numpy_helper.to_array(one) for one in held if one.name.startswith("scale"))
    assert scale.dtype == np.float16
    assert 0 < scale < 1e-7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"opset": 18}, r"small\.onnx has opset 18, whose Q/DQ nodes take no float16"),
        ({"weight": 70000.0}, r"weight has values above 65504"),
        ({"weight": np.nan}, r"weight has values above 65504"),
    ],
)
def test_what_float16_cannot_express_is_refused_with_the_reason(changes, reason):
    with pytest.raises(EngineError, match=reason):
        with_half_floats(small(**changes), "small.onnx")


def half_weights(bundle):
    """Whether a plan of the pretended library, which is an ONNX file, has weights in float16."""
    content = bundle.read(bundle.artifact("tensorrt", "int8").files[0])
    held = onnx.load_from_string(content.partition(b"\n")[2]).graph.initializer
    return any(one.data_type == TensorProto.FLOAT16 for one in held)


def build(bundle):
    return build_into_bundle(bundle, ["int8"], max_batch=4, on_step=lambda: None)


def test_a_plan_in_int8_is_built_with_float16_and_checked(bundle_copy, library):
    built = build(bundle_copy)
    assert half_weights(built)
    parity = verify_artifact(built, built.artifact("tensorrt", "int8"), EngineOptions())
    assert parity.cosine_min >= cosine_limit(built.manifest, built.artifact("tensorrt", "int8"))
    assert built.artifact("tensorrt", "int8").parity is not None


def without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)


def without_agreement_on_the_cpu(monkeypatch):
    parity = Parity(engine="pretended", cosine_min=0.5, max_abs_diff=1.0, batches=(1,))
    monkeypatch.setattr(half_floats, "measure_parity", lambda *_arguments, **_how: parity)


def without_agreement_on_the_gpu(monkeypatch):
    verify, results = verify_artifact, []

    def first_is_wrong(*arguments):
        results.append(verify(*arguments))
        return results[-1] if len(results) > 1 else Parity(engine="", cosine_min=0.5, max_abs_diff=1.0, batches=(1,))

    monkeypatch.setattr(builder, "verify_artifact", first_is_wrong)


def without_a_build(monkeypatch):
    build_plan, builds = builder.build_plan, []

    def first_fails(*arguments, **how):
        builds.append(arguments)
        if len(builds) == 1:
            raise EngineError("no implementation for node conv1")
        return build_plan(*arguments, **how)

    monkeypatch.setattr(builder, "build_plan", first_fails)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (without_onnx, r"float16 between the INT8 layers of a plan needs the package 'onnx'.*reid-edge\[onnx\]"),
        (without_agreement_on_the_cpu, r"with float16 in place of float32: lowest cosine .* 0\.500000"),
        (without_agreement_on_the_gpu, r"tensorrt/int8: lowest cosine .* 0\.500000"),
        (without_a_build, "no implementation for node conv1"),
    ],
)
def test_where_float16_fails_the_plan_is_built_in_float32_and_the_log_says_why(
    bundle_copy, library, monkeypatch, caplog, fault, reason
):
    fault(monkeypatch)
    built = build(bundle_copy)
    monkeypatch.undo()
    assert not half_weights(built)
    (record,) = (one for one in caplog.records if "float32, not in float16" in one.getMessage())
    assert record.levelname == "WARNING"
    assert re.search(reason, record.getMessage())
    plans = {f"tensorrt/{path.name}" for path in (built.path / "tensorrt").iterdir()}
    listed = {entry.path for entry in open_bundle(built.path).manifest.entries()}
    assert plans <= listed


def test_without_a_package_the_error_names_it(monkeypatch):
    without_onnx(monkeypatch)
    with pytest.raises(MissingExtraError, match="onnx"):
        with_half_floats(b"", "model.onnx")
