"""Peak kernels by ONNX Runtime: products of matrices in float32 and INT8."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from reid_edge.benchmark.peak_kernels import Arithmetic, Build, Kernel
from reid_edge.runtime.engines.onnxruntime import onnxruntime_version, open_session

_PURPOSE = "measuring the CPU's peak"
_ROWS = 128


def onnxruntime_kernels(threads: int) -> list[Build]:
    """Return kernels of two sizes in each arithmetic, for so many CPU threads."""
    return [partial(_build, arithmetic, size, threads) for arithmetic in ("fp32", "int8") for size in (512, 1024)]


def _build(arithmetic: Arithmetic, size: int, threads: int, batch: int) -> Kernel:
    rng = np.random.default_rng(0)
    rows = _ROWS * batch
    left: Any = rng.random((rows, size), np.float32)
    right: Any = rng.random((size, size), np.float32)
    if arithmetic == "int8":
        left, right = (255 * left).astype(np.uint8), (127 * right).astype(np.int8)
    session = open_session(_product(left, right), _PURPOSE, threads=threads)
    return Kernel(
        arithmetic=arithmetic,
        operations=2 * rows * size * size,
        threads=threads,
        how=f"product of matrices {rows}×{size} and {size}×{size}, ONNX Runtime {onnxruntime_version()}",
        run=partial(session.run, None, {"left": left}),
    )


def _product(left: Any, right: Any) -> bytes:
    """Return an ONNX model of one product whose right factor is constant, as weights are."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    int8 = right.dtype == np.int8
    node = helper.make_node("MatMulInteger" if int8 else "MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.UINT8 if int8 else TensorProto.FLOAT, left.shape)],
        [helper.make_tensor_value_info("product", TensorProto.INT32 if int8 else TensorProto.FLOAT, left.shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialised: bytes = onnx.ModelProto.SerializeToString(model)
    return serialised
