from dataclasses import replace

import numpy as np
import onnx
import pytest

from reid_edge.bundle import Bundle
from reid_edge.errors import TargetError
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.export.targets.network import OPSET, rgb_network
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.progress import silent
from tests.export.targets.literal import features_of, lowest_cosine, planes
from tests.export.tiny import SHALLOW, tiny_checkpoint


def remade(bundle, precision="fp32", *, form="mean subtracted, NCHW", batch=None):
    entry = bundle.artifact("onnxruntime", precision).files[0]
    return rgb_network(bundle.read(entry), entry.path, form=form, batch=batch)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 0.99999), ("fp16", 0.9999)])
def test_planes_without_mean_give_the_checkpoints_features(session_bundle, tmp_path, precision, limit):
    crops, expected = session_bundle.golden()
    network = remade(session_bundle, precision)
    onnx.save(network.model, tmp_path / "model.onnx")
    got = features_of(tmp_path / "model.onnx", planes(crops, scale=1, offsets=network.mean))
    assert lowest_cosine(got, expected) > limit


def test_float_pixels_give_the_checkpoints_features(session_bundle, tmp_path):
    crops, expected = session_bundle.golden()
    network = remade(session_bundle, form="pixels, NHWC", batch=1)
    onnx.save(network.model, tmp_path / "model.onnx")
    assert network.mean == (0, 0, 0)
    assert lowest_cosine(features_of(tmp_path / "model.onnx", crops[..., ::-1].astype(np.float32)), expected) > 0.99999


def test_a_batch_is_fixed_or_free_and_old_compilers_know_the_opset(session_bundle):
    one, free = remade(session_bundle, batch=1).model, remade(session_bundle).model
    shape = one.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape] == [1, 3, 256, 128]
    assert free.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert one.opset_import[0].version == OPSET == 17
    assert {node.op_type for node in one.graph.node} == {
        "Add", "AveragePool", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Sigmoid",
    }  # fmt: skip


def test_maximum_pooling_is_made_anew_too(tmp_path):
    options = ExportOptions(out=tmp_path / "b", formats=("onnx",), precisions=("fp32",), time_files=False)
    bundle = export_bundle(tiny_checkpoint(variant=replace(SHALLOW, pooling="maximum")), options, silent)
    crops, expected = bundle.golden()
    network = remade(bundle, form="pixels, NHWC", batch=1)
    onnx.save(network.model, tmp_path / "model.onnx")
    assert "GlobalMaxPool" in {node.op_type for node in network.model.graph.node}
    assert lowest_cosine(features_of(tmp_path / "model.onnx", crops[..., ::-1].astype(np.float32)), expected) > 0.99999


def test_int8_files_cannot_be_made_anew(session_bundle):
    with pytest.raises(TargetError, match="only FP32 and FP16 files"):
        remade(session_bundle, "int8")


def test_a_bundle_that_takes_normalised_tensors_is_refused_with_the_remedy(tmp_path):
    options = ExportOptions(
        out=tmp_path / "b", formats=("onnx",), precisions=("fp32",), input_format="tensor", time_files=False
    )
    bundle = export_bundle(tiny_checkpoint(), options, silent)
    with pytest.raises(TargetError, match="Export the bundle again without --input tensor"):
        remade(bundle)


def test_networks_with_instance_norm_are_made_anew_too(tmp_path):
    variant = NetworkVariant(blocks=(1, 1, 1), streams=(1, 2), instance_norm=True)
    options = ExportOptions(out=tmp_path / "b", formats=("onnx",), precisions=("fp32",), time_files=False)
    bundle: Bundle = export_bundle(tiny_checkpoint(variant=variant), options, silent)
    crops, expected = bundle.golden()
    network = remade(bundle, batch=1)
    onnx.save(network.model, tmp_path / "model.onnx")
    got = features_of(tmp_path / "model.onnx", planes(crops, scale=1, offsets=network.mean))
    assert lowest_cosine(got, expected) > 0.99999


def test_other_files_are_refused():
    with pytest.raises(TargetError, match="is no ONNX file"):
        rgb_network(b"\xff" * 40, "model.onnx", form="pixels, NHWC", batch=1)
