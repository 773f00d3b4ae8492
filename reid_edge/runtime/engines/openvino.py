"""OpenVINO: static batches, each compiled on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.bundle import Artifact
from reid_edge.errors import EngineError, MissingExtraError
from reid_edge.runtime.engines.base import Batch, EngineOptions, Features

#: A static batch of 8 takes 0.8 of a dynamic one's time (benchmarks/README.md); sizes between are put together.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class OpenVINOEngine:
    """Runs an OpenVINO IR."""

    def __init__(self, path: Path, artifact: Artifact, options: EngineOptions) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "the OpenVINO engine") from error
        self._core = openvino.Core()
        if options.device not in self._core.available_devices:
            raise EngineError(
                f"OpenVINO has no device '{options.device}' here; it has {', '.join(self._core.available_devices)}."
            )
        if options.cache_dir is not None:
            try:
                self._core.set_property({"CACHE_DIR": str(options.cache_dir)})
            except RuntimeError as error:
                raise EngineError(f"OpenVINO cannot keep compiled models in {options.cache_dir}: {error}") from error
        self._path = path
        self._device = options.device
        self._properties = _properties(artifact, options)
        self._requests: dict[int, Any] = {}
        self.batch_sizes: tuple[int, ...] | None = tuple(size for size in BATCH_SIZES if size <= artifact.max_batch)
        version = openvino.get_version().split("-")[0]
        self.description = f"openvino {version} {self._core.get_property(options.device, 'FULL_DEVICE_NAME').strip()}"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        request = self._requests.get(len(batch)) or self._compile(batch.shape)
        request.infer([batch], share_inputs=True)
        return np.array(request.get_output_tensor().data, dtype=np.float32)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        model = self._core.read_model(self._path)
        model.reshape(list(shape))
        request = self._core.compile_model(model, self._device, self._properties).create_infer_request()
        self._requests[shape[0]] = request
        return request


def _properties(artifact: Artifact, options: EngineOptions) -> dict[str, Any]:
    # Without the hint a CPU with AMX or AVX512-BF16 runs "FP32" in bfloat16, and features drift from the checkpoint's.
    float_type = "f16" if artifact.precision != "fp32" and options.device != "CPU" else "f32"
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": float_type}
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = options.threads
    return properties
