"""Convert a float32 ONNX file: to an OpenVINO IR, and to INT8 by NNCF's post-training quantization."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import openvino

from reid_edge.errors import OutputError
from reid_edge.export.onnx import INPUT
from reid_edge.runtime.engines import Batch

#: Gates stay in float: one scale for what they see of four streams costs up to 11 mAP, and reorders around these tiny
#: layers make INT8 slower than FP32 (docs/quantization.md).  So does what comes before conv1 (node names "/…").
_KEEP_FLOAT = (r".*gate.*", r"^/.*")


def write_ir(model_path: Path, out: Path, *, half_weights: bool = False) -> None:
    """Convert an ONNX file into an OpenVINO IR.

    Args:
        model_path: The ONNX file.
        out: The ``.xml``; the ``.bin`` goes beside it.
        half_weights: Store float32 weights as float16.

    Raises:
        OutputError: The disk is full, or cannot be written.
    """
    _save_ir(openvino.convert_model(model_path), out, half_weights=half_weights)


def quantize_openvino(
    model_path: Path,
    out: Path,
    batches: list[Batch],
    *,
    needs_vnni: bool,
    draft: bool = False,
) -> None:
    """Quantize an ONNX file into an OpenVINO IR.

    Args:
        model_path: The float32 ONNX.
        out: The ``.xml``; the ``.bin`` goes beside it.
        batches: Calibration inputs, one crop each.
        needs_vnni: Use the full int8 range of weights; else half of it, so that x86 without VNNI does not overflow.
        draft: Leave out what makes it accurate and takes time: enough to see how fast it is.

    Raises:
        OutputError: The disk is full, or cannot be written.
    """
    quantized = _quantize(
        openvino.convert_model(model_path),
        [{INPUT: batch} for batch in batches],
        preset=nncf.QuantizationPreset.MIXED,
        # Layer by layer, from what INT8 really computes; the fast kind cost our x0.25 0.3 mAP (docs/quantization.md).
        # NNCF's ONNX backend fails at it on branches.
        fast_bias_correction=draft,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=_overflow_fix(needs_vnni)),
    )
    _save_ir(quantized, out)


def quantize_onnx(model_path: Path, out: Path, batches: list[Batch], *, needs_vnni: bool) -> None:
    """Quantize an ONNX file into one with signed, symmetric Q/DQ nodes, the only kind that TensorRT takes.

    Arguments are those of :func:`quantize_openvino`; ``out`` is an ONNX file.
    """
    quantized = _quantize(
        onnx.load(model_path),
        [{INPUT: batch} for batch in batches],
        preset=nncf.QuantizationPreset.PERFORMANCE,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=_overflow_fix(needs_vnni)),
    )
    _make_signed(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    onnx.save(quantized, out)


def _make_signed(model: onnx.ModelProto) -> None:
    """Turn NNCF's unsigned quantizers (zero point 0, values 0–255) into signed ones of the same range (0–127).

    TensorRT parses an unsigned zero point but computes in int8.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    unsigned = {
        (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and tensors[node.input[2]].data_type == onnx.TensorProto.UINT8
    }
    for scale_name, zero_name in unsigned:
        scale, zero = (onnx.numpy_helper.to_array(tensors[name]) for name in (scale_name, zero_name))
        wider = (scale * (255 / 127)).astype(scale.dtype)
        tensors[scale_name].CopyFrom(onnx.numpy_helper.from_array(wider, scale_name))
        tensors[zero_name].CopyFrom(onnx.numpy_helper.from_array(zero.astype(np.int8), zero_name))
    # Types noted between the nodes are those of before.
    del model.graph.value_info[:]


def _quantize(model: Any, inputs: list[dict[str, Batch]], **parameters: Any) -> Any:
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # bars of its own, which break the caller's
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(patterns=list(_KEEP_FLOAT), validate=False),
            **parameters,
        )


def _overflow_fix(needs_vnni: bool) -> nncf.OverflowFix:
    return nncf.OverflowFix.DISABLE if needs_vnni else nncf.OverflowFix.ENABLE


def _save_ir(model: Any, path: Path, *, half_weights: bool = False) -> None:
    try:
        openvino.save_model(model, path, compress_to_fp16=half_weights)
    except RuntimeError as error:  # OpenVINO says no more than that its stream failed
        raise OutputError(f"cannot write {path}: {error}. Is the disk full?") from error
