"""What a plan computes in: the types that TensorRT's inspector tells of its layers."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from types import ModuleType
from typing import Any

from reid_edge.runtime.cuda import GpuStream
from reid_edge.runtime.engines.tensorrt import tensor_names
from reid_edge.runtime.tensorrt_library import library_log, make

_logger = logging.getLogger(__name__)


def built_precisions(library: ModuleType, plan: bytes, batch: int) -> dict[str, int]:
    """Ask the engine in which precision each layer was built; empty where it does not say.

    Without an execution context that knows the shape, the answer is "N/A due to dynamic shapes".
    """
    stream = GpuStream()
    try:
        runtime = make(library, "a runtime", lambda: library.Runtime(library_log(library)))
        engine = make(library, "an engine of the plan", lambda: runtime.deserialize_cuda_engine(plan))
        context = make(library, "an execution context", engine.create_execution_context)
        crops, _features = tensor_names(library, engine)
        context.set_input_shape(crops, (batch, *tuple(engine.get_tensor_shape(crops))[1:]))
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        found = count_precisions(inspector.get_engine_information(library.LayerInformationFormat.JSON))
        del inspector, context, engine
    finally:
        stream.close()
    return found


#: Names of types in the inspector's words, and what we call them.
_TYPES = {
    "fp32": "FP32",
    "float": "FP32",
    "fp16": "FP16",
    "half": "FP16",
    "int8": "INT8",
    "bf16": "BF16",
    "bfp16": "BF16",
}
_OTHER_TYPES = re.compile(r"\b(fp8|fp4|int32|int64|uint8|bool)\b", re.IGNORECASE)
_KNOWN_TYPES = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)


def count_precisions(inspection: str) -> dict[str, int]:
    """Count layers by the type that they compute in, from an engine inspector's JSON.

    A layer has ``"Outputs": [{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]``: the type is
    one of the words.  Newer releases have it in ``"Datatype"``.  Where neither tells, ``"Weights": {"Type": "Half"}``
    does.  (TensorRT developer guide, "Engine Inspector".)
    """
    try:
        layers = [layer for layer in json.loads(inspection)["Layers"] if isinstance(layer, dict)]
    except (ValueError, KeyError, TypeError) as error:
        _logger.warning("what the plan computes in is not known, TensorRT's inspector gives no JSON: %s", error)
        return {}
    return dict(Counter(_type_of(layer) for layer in layers if layer.get("Outputs")))


def _type_of(layer: dict[str, Any]) -> str:
    output, weights = layer["Outputs"][0], layer.get("Weights")
    texts = [str(output.get("Datatype", "")), str(output.get("Format/Datatype", ""))]
    texts += [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    for text in texts:
        if found := _KNOWN_TYPES.search(text):
            return _TYPES[found[1].lower()]
        if found := _OTHER_TYPES.search(text):
            return found[1].upper()
    return "unknown"
