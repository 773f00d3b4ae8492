"""INT8 by NNCF's post-training quantization, and the verdict on it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import openvino

from reid_edge.bundle import Verdict
from reid_edge.crops import Image
from reid_edge.export.onnx import INPUT
from reid_edge.features import l2_normalised, row_cosines
from reid_edge.runtime.engines import Batch, Features

#: Gates stay in float: one scale for what they see of four streams costs up to 11 mAP, and reorders around these tiny
#: layers make INT8 slower than FP32 (docs/quantization.md).  So does what comes before conv1 (node names "/…").
_IGNORED = nncf.IgnoredScope(patterns=[r".*gate.*", r"^/.*"])

#: The verdict's limits.  Good INT8 of our x0.25 reached 0.995 / 0.99 / 0.92 / 0.99; calibrated with noise, which cost
#: 2 mAP and more, 0.95 / 0.89 / 0.75 / 0.92 (docs/quantization.md).
MIN_COSINE = 0.97
MIN_RANKING = 0.93
MIN_NEIGHBOURS = 0.80
VARIANCE = (0.95, 1.05)
NEIGHBOURS = 10


def quantize_openvino(model_path: Path, out: Path, batches: list[Batch], *, needs_vnni: bool) -> None:
    """Quantize an ONNX file into an OpenVINO IR.

    Args:
        model_path: The float32 ONNX.
        out: The ``.xml``; the ``.bin`` goes beside it.
        batches: Calibration inputs, one crop each.
        needs_vnni: Use the full int8 range of weights; else half of it, so that x86 without VNNI does not overflow.
    """
    quantized = _quantize(
        openvino.convert_model(model_path),
        [{INPUT: batch} for batch in batches],
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=_overflow_fix(needs_vnni)),
    )
    openvino.save_model(quantized, out, compress_to_fp16=False)


def quantize_onnx(model_path: Path, out: Path, batches: list[Batch], *, needs_vnni: bool) -> None:
    """Quantize an ONNX file into one with signed, symmetric Q/DQ nodes, the only kind that TensorRT takes."""
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
    return nncf.quantize(
        model, nncf.Dataset(inputs), subset_size=len(inputs), ignored_scope=_IGNORED, **parameters
    )


def _overflow_fix(needs_vnni: bool) -> nncf.OverflowFix:
    return nncf.OverflowFix.DISABLE if needs_vnni else nncf.OverflowFix.ENABLE


def judge(exact: Features, quantized: Features, *, crops: str) -> Verdict:
    """Compare INT8 features with FP32 features of the same crops.

    Args:
        exact: N×D of the checkpoint.
        quantized: N×D of the INT8 file.
        crops: What the crops are, for the record.
    """
    exact_unit, quantized_unit = l2_normalised(exact), l2_normalised(quantized)
    exact_order = _neighbour_order(exact_unit)
    quantized_order = _neighbour_order(quantized_unit)
    cosine = float(row_cosines(exact, quantized).mean())
    ranking = _mean_spearman(exact_order, quantized_order)
    neighbours = _mean_overlap(exact_order, quantized_order)
    variance = float(quantized_unit.var(axis=0).sum() / exact_unit.var(axis=0).sum())
    low, high = VARIANCE
    reasons = [
        text
        for broken, text in (
            (not cosine >= MIN_COSINE, f"mean cosine {cosine:.4f} is under {MIN_COSINE}"),
            (not ranking >= MIN_RANKING, f"ranking agreement {ranking:.4f} is under {MIN_RANKING}"),
            (not neighbours >= MIN_NEIGHBOURS, f"neighbour agreement {neighbours:.4f} is under {MIN_NEIGHBOURS}"),
            (not low <= variance <= high, f"feature variance {variance:.3f} of FP32's is outside {low} to {high}"),
        )
        if broken
    ]
    return Verdict(
        verdict="rejected" if reasons else "accepted",
        crops=crops,
        cosine_mean=cosine,
        ranking=ranking,
        neighbours=neighbours,
        variance=variance,
        reasons=tuple(reasons),
    )


def _neighbour_order(unit: Features) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Row i lists the other crops, nearest first: N×(N−1)."""
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :-1]


def _mean_spearman(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Mean over rows of Spearman's rank correlation, 1 − 6 Σd² / (n(n² − 1))."""
    count = first.shape[1]
    rank_of = [np.argsort(order, axis=1) for order in (_dense(first), _dense(second))]
    squares = ((rank_of[0] - rank_of[1]) ** 2).sum(axis=1)
    return float((1 - 6 * squares / (count * (count**2 - 1))).mean())


def _dense(order: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Number each row's neighbours 0…N−2 by leaving out the row itself."""
    return order - (order > np.arange(len(order))[:, None])


def _mean_overlap(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    nearest = min(NEIGHBOURS, first.shape[1])
    shared = [
        len(set(a) & set(b)) for a, b in zip(first[:, :nearest].tolist(), second[:, :nearest].tolist(), strict=True)
    ]
    return float(np.mean(shared) / nearest)

