"""Mult-adds and parameters of an ONNX file, without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from reid_edge.errors import BundleError, MissingExtraError

if TYPE_CHECKING:
    import onnx


def onnx_mult_adds(path: Path) -> int:
    """Count multiply-adds of convolutions and linear layers for one crop, as the paper's Table 6 counts them.

    Quantized files count the same: weights behind Q/DQ nodes keep their shape.

    Raises:
        MissingExtraError: The package ``onnx`` is not installed.
        BundleError: Not a readable ONNX file.
    """
    graph = _single_crop_graph(path)
    shapes = _shapes(graph)
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weight, output = shapes[node.input[1]], shapes[node.output[0]]
            per_output = math.prod(weight[1:]) if node.op_type == "Conv" else shapes[node.input[0]][-1]
            total += math.prod(output) * per_output
    return total


def _single_crop_graph(path: Path) -> onnx.GraphProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "counting an ONNX file's mult-adds") from error
    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise BundleError(f"{path} is not a readable ONNX file: {error}.") from error
    if not model.graph.node:
        raise BundleError(f"{path} is not a readable ONNX file: it holds no network.")
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes
