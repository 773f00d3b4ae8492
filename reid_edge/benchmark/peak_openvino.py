"""Peak kernels by OpenVINO, in every float type that the CPU supports, and INT8."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from reid_edge.benchmark.peak_kernels import Arithmetic, Build, Kernel
from reid_edge.errors import EngineError
from reid_edge.runtime.engines.openvino import compile_network, openvino_core, openvino_version

_PURPOSE = "measuring the CPU's peak"
#: Layers one after another, so that the network's input and output weigh little.
LAYERS = 3
_HINTS: dict[Arithmetic, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
#: Names that the CPU plugin's execution graph gives to the arithmetic that must have run.
_EXECUTED: dict[Arithmetic, set[str]] = {"fp32": {"f32"}, "bf16": {"bf16"}, "fp16": {"f16"}, "int8": {"i8", "u8"}}
_COUNTED_LAYERS = {"Convolution", "FullyConnected", "MatMul"}

#: A network, its multiply-adds, and a description in words.
_Network = tuple[Any, int, str]


def openvino_kernels(threads: int | None) -> list[Build]:
    """Return kernels of three shapes in each arithmetic; one that OpenVINO did not run in it is left out when built.

    Args:
        threads: CPU threads; None: OpenVINO's choice.
    """
    core = openvino_core(_PURPOSE)
    shapes: list[Callable[[int, bool], _Network]] = [
        partial(_convolutions, channels=256, side=20, kernel=3),
        partial(_convolutions, channels=512, side=14, kernel=1),
        _products,
    ]
    listed = {"int8", *(name.lower() for name in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))}
    arithmetics = [arithmetic for arithmetic in _HINTS if arithmetic in listed]
    return [partial(_build, shape, arithmetic, threads) for arithmetic in arithmetics for shape in shapes]


def _build(
    shape: Callable[[int, bool], _Network], arithmetic: Arithmetic, threads: int | None, batch: int
) -> Kernel | None:
    model, mult_adds, words = shape(batch, arithmetic == "int8")
    hint = {"INFERENCE_PRECISION_HINT": _HINTS[arithmetic]}
    try:
        compiled = compile_network(model, "CPU", _PURPOSE, threads=threads, properties=hint)
    except EngineError:
        if arithmetic in {"fp32", "int8"}:
            raise
        return None  # a float type that the plugin lists and a limit of the instruction set forbids
    if not _executed(compiled) <= _EXECUTED[arithmetic]:
        return None
    request = compiled.create_infer_request()
    return Kernel(
        arithmetic=arithmetic,
        operations=2 * mult_adds,
        threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        how=f"{words}, batch {batch}, OpenVINO {openvino_version()}",
        run=request.infer,
    )


def _executed(compiled: Any) -> set[str]:
    """Return the types that the layers with multiply-adds were compiled for."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return {fact["runtimePrecision"].astype(str) for fact in facts if fact["layerType"].astype(str) in _COUNTED_LAYERS}


def _convolutions(batch: int, int8: bool, *, channels: int, side: int, kernel: int) -> _Network:
    """Return convolutions without padding, so that every tap that is counted is computed."""
    from openvino import Model, opset13

    pixels = opset13.parameter([batch, channels, side, side], np.float32)
    data, mult_adds = pixels, 0
    for layer in range(LAYERS):
        weights = _weights((channels, channels, kernel, kernel), layer, int8)
        data = opset13.convolution(_activations(data, int8), weights, [1, 1], [0, 0], [0, 0], [1, 1])
        data = opset13.relu(data)
        side -= kernel - 1
        mult_adds += batch * channels * channels * kernel**2 * side**2
    return Model([data], [pixels]), mult_adds, f"{kernel}×{kernel} convolutions of {channels} channels"


def _products(batch: int, int8: bool) -> _Network:
    from openvino import Model, opset13

    rows, size = 128 * batch, 1024
    left = opset13.parameter([rows, size], np.float32)
    data = left
    for layer in range(LAYERS):
        weights = _weights((size, size), layer, int8)
        data = opset13.relu(opset13.matmul(_activations(data, int8), weights, False, True))
    return Model([data], [left]), LAYERS * rows * size**2, f"products of matrices {rows}×{size} and {size}×{size}"


def _activations(data: Any, int8: bool) -> Any:
    return _fake_quantize(data, 0.0, 1.0, 256) if int8 else data


def _weights(shape: tuple[int, ...], seed: int, int8: bool) -> Any:
    from openvino import opset13

    constant = opset13.constant((np.random.default_rng(seed).random(shape, np.float32) - 0.5) / 10)
    return _fake_quantize(constant, -0.05, 0.05, 255) if int8 else constant


def _fake_quantize(data: Any, low: float, high: float, levels: int) -> Any:
    """Return a quantizer, by which OpenVINO knows to compute the next layer in INT8."""
    from openvino import opset13

    ends = np.float32(low), np.float32(high)
    return opset13.fake_quantize(data, *ends, *ends, levels)
