"""OpenVINO: static batches, each compiled on first use, and split among streams where that was found faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.bundle import Artifact
from reid_edge.errors import EngineError
from reid_edge.runtime.engines.base import Batch, EngineOptions, Features
from reid_edge.runtime.engines.ovlib import openvino_core, openvino_version
from reid_edge.tuning_record import Execution

#: A static batch of 8 takes 0.8 of a dynamic one's time (benchmarks/README.md); sizes between are put together.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class OpenVINOEngine:
    """Runs an OpenVINO IR."""

    def __init__(self, path: Path, artifact: Artifact, options: EngineOptions) -> None:
        self._core = openvino_core("the OpenVINO engine")
        if options.device not in self._core.available_devices:
            raise EngineError(
                f"OpenVINO has no device '{options.device}' here; it has {', '.join(self._core.available_devices)}."
            )
        if options.cache_dir is not None:
            try:
                options.cache_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EngineError(f"OpenVINO cannot keep compiled models in {options.cache_dir}: {error}") from error
        self._path = path
        self._device = options.device
        self._execution = artifact.execution or Execution()
        self._properties = _properties(artifact, self._execution, options)
        self._requests: dict[int, list[Any]] = {}
        self.batch_sizes: tuple[int, ...] | None = tuple(size for size in BATCH_SIZES if size <= artifact.max_batch)
        self.description = (
            f"openvino {openvino_version()} {self._core.get_property(options.device, 'FULL_DEVICE_NAME').strip()}"
        )

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        requests = self._requests.get(len(batch)) or self._compile(batch.shape)
        if len(requests) == 1:
            requests[0].infer([batch], share_inputs=True)
            return _output(requests[0]).astype(np.float32)  # a copy: the next call writes there
        for request, part in zip(requests, np.split(batch, len(requests)), strict=True):
            request.start_async([part], share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([_output(request) for request in requests]).astype(np.float32, copy=False)

    def _compile(self, shape: tuple[int, ...]) -> list[Any]:
        """One request for each part that a batch of this size is computed in."""
        size, *rest = shape
        streams = self._execution.streams if size % self._execution.streams == 0 else 1
        model = self._core.read_model(self._path)
        model.reshape([size // streams, *rest])
        split = {"NUM_STREAMS": streams} if streams > 1 else {}  # not every device knows streams
        try:
            compiled = self._core.compile_model(model, self._device, self._properties | split)
        except RuntimeError as error:  # e.g. bf16 where ONEDNN_MAX_CPU_ISA forbids it
            raise EngineError(f"OpenVINO cannot compile {self._path} ({self._execution}): {error}") from error
        requests = [compiled.create_infer_request() for _ in range(streams)]
        self._requests[size] = requests
        return requests


def _output(request: Any) -> Features:
    features: Features = request.get_output_tensor().data
    return features


def _properties(artifact: Artifact, execution: Execution, options: EngineOptions) -> dict[str, Any]:
    # Without the hint a CPU with AMX or AVX512-BF16 runs "FP32" in bfloat16, and features drift from the checkpoint's.
    half = artifact.float_precision != "fp32" and options.device != "CPU"
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f16" if half else execution.float_type,
    }
    threads = options.threads or execution.threads
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    if options.cache_dir is not None:
        properties["CACHE_DIR"] = str(options.cache_dir)
    return properties
