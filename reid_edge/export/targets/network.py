"""A bundle's ONNX file in the form that other software takes: float32 pixels, RGB, operators that all compilers know.

The files of a bundle begin with a cast, a transposition and the subtraction of the mean (:mod:`reid_edge.export.onnx`);
the division by std is in conv1.  Here the beginning is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from reid_edge.errors import TargetError, shortened
from reid_edge.export.onnx import INPUT, OUTPUT

#: Read by TensorRT since 8.6, by Hailo's, Rockchip's and Qualcomm's compilers.
OPSET = 17
#: Of ONNX 1.12, which has that opset.
_IR_VERSION = 8
#: Operators over all pixels, by what the files of a bundle have for them.
_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}

Form = Literal["mean subtracted, NCHW", "pixels, NHWC"]


@dataclass(frozen=True)
class RgbNetwork:
    """A network for other software, float32 in and out.

    Attributes:
        model: Input ``crops``, N×3×H×W or N×H×W×3, RGB; output ``features``, N×D, not normalised.
        mean: What is to be subtracted from pixels 0–255 before, RGB; zeros where the network does so itself.
    """

    model: onnx.ModelProto
    mean: tuple[float, float, float]


def rgb_network(content: bytes, name: str, *, form: Form, batch: int | None, scale: float = 1.0) -> RgbNetwork:
    """Make the network of a bundle's ONNX file anew for other software.

    Args:
        content: The file, whose input is uint8 N×H×W×3, BGR.
        name: Of the file, for the errors.
        form: ``mean subtracted, NCHW``: float32 N×3×H×W, RGB, from which the software has subtracted the mean;
            ``pixels, NHWC``: float32 N×H×W×3, RGB, 0 to 255.
        batch: The only batch; None: any.
        scale: What the software multiplies the pixels with, after the mean.

    Raises:
        TargetError: The file is none of those that export writes.
    """
    model = _parsed(content, name)
    graph = model.graph
    subtraction, mean_bgr = _beginning(graph, name)
    _turn_to_rgb(graph, subtraction.output[0], name, scale)
    _set_input(graph, batch, form)
    mean = np.ascontiguousarray(mean_bgr[:, ::-1])
    if form == "pixels, NHWC":
        _begin_with_pixels(graph, subtraction, mean)
        mean = np.zeros_like(mean)
    else:
        _replace_input(graph, subtraction.output[0], INPUT)
        graph.node.remove(subtraction)
    _pool_by_name(graph, name)
    _finish(model)
    red, green, blue = (float(value) for value in mean.ravel())
    return RgbNetwork(model, (red, green, blue))


def _parsed(content: bytes, name: str) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's, which is no base of ours
        raise TargetError(f"{name} is no ONNX file ({shortened(error)}); export the bundle again.") from error


def _beginning(graph: onnx.GraphProto, name: str) -> tuple[onnx.NodeProto, npt.NDArray[np.float32]]:
    """Take off the cast and the transposition; return the subtraction, and the mean, 1×3×1×1 float32, BGR."""
    first = list(graph.node[:3])
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if [node.op_type for node in first] != ["Cast", "Transpose", "Sub"] or first[2].input[1] not in constants:
        raise TargetError(
            f"{name} does not begin with a cast, a transposition and the subtraction of the mean, as the files of "
            "'reid-edge export --input pixels' do. Export the bundle again without --input tensor."
        )
    mean = numpy_helper.to_array(constants[first[2].input[1]])
    for node in first[:2]:
        graph.node.remove(node)
    return first[2], mean


def _turn_to_rgb(graph: onnx.GraphProto, after: str, name: str, scale: float) -> None:
    """Turn the order of the channels that conv1 takes from BGR to RGB; divide its weights by the scale."""
    users = [node for node in graph.node if after in node.input]
    if len(users) == 1 and users[0].op_type == "Cast":  # of float16
        users = [node for node in graph.node if users[0].output[0] in node.input]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    if len(users) != 1 or users[0].op_type != "Conv" or users[0].input[1] not in weights:
        raise TargetError(f"{name} does not begin with a convolution; only FP32 and FP16 files can be made anew.")
    held = weights[users[0].input[1]]
    turned = np.ascontiguousarray(numpy_helper.to_array(held)[:, ::-1]) / scale
    held.CopyFrom(numpy_helper.from_array(turned, held.name))


def _set_input(graph: onnx.GraphProto, batch: int | None, form: Form) -> None:
    height, width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:3])
    size = (3, height, width) if form == "mean subtracted, NCHW" else (height, width, 3)
    count: int | str = "batch" if batch is None else batch
    features = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    crops = helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, (count, *size))
    found = helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, (count, features))
    graph.input[0].CopyFrom(crops)
    graph.output[0].CopyFrom(found)


def _begin_with_pixels(graph: onnx.GraphProto, subtraction: onnx.NodeProto, mean: npt.NDArray[np.float32]) -> None:
    graph.node.insert(0, helper.make_node("Transpose", [INPUT], ["planes"], "/Transpose", perm=[0, 3, 1, 2]))
    graph.initializer.append(numpy_helper.from_array(mean, "mean_rgb"))
    subtraction.input[:] = ["planes", "mean_rgb"]


def _replace_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _pool_by_name(graph: onnx.GraphProto, name: str) -> None:
    """Write means and maxima over all pixels as global pools, which compilers for NPUs know best; they have no axes."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type not in _POOLS:
            nodes.append(node)
        elif sorted(axis % 4 for axis in constants[node.input[1]].tolist()) == [2, 3]:
            nodes += _pooling(node)
        else:
            raise TargetError(f"{name} reduces others than all pixels ({node.name}), which is not known here.")
    del graph.node[:]
    graph.node.extend(nodes)


def _pooling(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    flat = not _attribute(node, "keepdims", 1)
    pooled = f"{node.output[0]}/pooled" if flat else node.output[0]
    pool = helper.make_node(_POOLS[node.op_type], [node.input[0]], [pooled], node.name)
    if not flat:
        return [pool]
    return [pool, helper.make_node("Flatten", [pooled], [node.output[0]], f"{node.name}/Flatten", axis=1)]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _finish(model: onnx.ModelProto) -> None:
    """Set the opset, drop what nobody uses any more, and check the whole."""
    graph = model.graph
    del graph.value_info[:]
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.opset_import[0].version = OPSET
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
