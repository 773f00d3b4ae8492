"""Plans for the native engine, from an ONNX file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper

from reid_edge.errors import ConfigError, EngineError
from reid_edge.export.native_int8 import Int8Rounding
from reid_edge.export.onnx import InputFormat
from reid_edge.manifest import Precision
from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.runtime.engines import Batch
from reid_edge.runtime.native.library import NativePrecision, available_kernels
from reid_edge.runtime.native.plan import PlannedNetwork, Weights, make_plan, require_limits, with_ranges
from reid_edge.types import Size

_PRECISIONS: dict[Precision, NativePrecision] = {"fp32": "fp32", "int8": "int8"}


def native_precisions() -> tuple[Precision, ...]:
    """Return the precisions of plans that can be made and checked here; none where the engine is not installed."""
    try:
        return tuple(name for name, native in _PRECISIONS.items() if available_kernels(native))
    except EngineError:
        return ()


def why_no_plan(info: CheckpointInfo, input_format: InputFormat) -> EngineError | ConfigError | None:
    """Return the reason why no plan of a network can be made and checked here; None where it can.

    Args:
        info: The network, at the size that is exported.
        input_format: What its files take.
    """
    try:
        available_kernels("fp32")
    except EngineError as error:
        return error
    if input_format != "pixels":
        return _not_pixels()
    variant, config = info.variant, info.config
    if variant.convolution != "lite":
        return ConfigError(
            f"the native engine computes Lite 3x3 layers only, and this network is {variant}. "
            "Use another engine (--engine)."
        )
    if variant.stem_reduction != 4 or variant.pooling != "average":
        return ConfigError(
            f"the native engine has the primary model's strides and pools, and this network is {variant}. "
            "Use another engine (--engine)."
        )
    try:
        require_limits(
            size=config.size,
            mean=info.mean,
            lengths=variant.streams,
            blocks=sum(variant.blocks),
            channels=config.channels,
            feature_dim=config.feature_dim,
        )
    except ConfigError as error:
        return error
    return None


def _not_pixels() -> ConfigError:
    return ConfigError("the native engine takes uint8 pixels, and this network normalised values: --input pixels.")


def plan_of_onnx(source: Path) -> bytes:
    """Write the network of an ONNX file as a plan.

    Args:
        source: As :func:`reid_edge.export.onnx.export_onnx` writes it in float32, for uint8 pixels; the network is
            folded and not otherwise rewritten.

    Raises:
        ConfigError: The native engine cannot compute this network.
    """
    network, size, mean = _network_of_onnx(source)
    return make_plan(network, size, mean)


def int8_plan_of_onnx(source: Path, batches: Iterable[Batch]) -> bytes:
    """Write the network of an ONNX file as a plan for INT8: with ranges of its activations, and rounded weights.

    Args:
        source: As for :func:`plan_of_onnx`.
        batches: Calibration inputs, uint8 N×H×W×3 BGR.

    Raises:
        ConfigError: The native engine cannot compute this network.
    """
    weights, size, mean = _network_of_onnx(source)
    red, green, blue = (255 * part for part in mean)
    rounded, ranges = Int8Rounding(PlannedNetwork(weights), np.concatenate(list(batches)), (blue, green, red)).run()
    return with_ranges(make_plan(rounded, size, mean), ranges)


def _network_of_onnx(source: Path) -> tuple[Weights, Size, tuple[float, float, float]]:
    """Weights, input size, and mean of the training images, RGB."""
    model = onnx.load(source)
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    if "mean_bgr" not in arrays:
        raise _not_pixels()
    _, height, width, _ = (axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim)
    blue, green, red = (float(value) / 255 for value in arrays["mean_bgr"].ravel())
    weights = {name: array for name, array in arrays.items() if name.startswith("network.")}
    return weights, (height, width), (red, green, blue)
