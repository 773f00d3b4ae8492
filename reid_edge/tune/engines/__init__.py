"""One file per engine that can be tuned for; this one chooses among them."""

from __future__ import annotations

from reid_edge.bundle import EngineName
from reid_edge.tune.engines.base import Quantization, TuningEngine
from reid_edge.tune.engines.onnxruntime import OnnxRuntimeTuning
from reid_edge.tune.engines.openvino import OpenVINOTuning
from reid_edge.tune.engines.tensorrt import TensorRTTuning

__all__ = ["Quantization", "TuningEngine", "tuning_engine"]

_ENGINES: dict[EngineName, type[TuningEngine]] = {
    "openvino": OpenVINOTuning,
    "onnxruntime": OnnxRuntimeTuning,
    "tensorrt": TensorRTTuning,
}


def tuning_engine(name: EngineName, crops: int) -> TuningEngine:
    """What tuning has to know of an engine.

    Args:
        name: Which.
        crops: Of a query.

    Raises:
        EngineUnavailableError: Its files cannot be made here.
    """
    return _ENGINES[name](crops)
