"""OpenVINO: the process's one core, compiled models, and the engine that makes features with them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.errors import EngineError, MissingExtraError
from reid_edge.manifest import Artifact
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.system.threads import thread_limit
from reid_edge.tuning_record import Execution
from reid_edge.types import Features

#: A static batch of 8 takes 0.8 of a dynamic one's time (benchmarks/README.md); sizes between are put together.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)

_making = threading.Lock()


def openvino_core(purpose: str) -> Any:
    """Return the ``openvino.Core`` of this process, which several threads may use and which is never freed.

    Each core's CPU plugin gives the thread that loads it a stack for signal handlers, and frees that stack with
    itself; of two cores the one freed last restores the other's stack, which is gone.  The next signal that Python
    handles, a SIGTERM say, then kills the process without a word (seen with OpenVINO 2026.4.1: ``SigAltStackSetup``
    of its CPU plugin).  So there is never a second core.  Properties that differ between models go to
    :func:`compile_network`, never into the core.

    Args:
        purpose: What needs it, for the error.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    try:
        with _making:
            return _core()
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", purpose) from error


def openvino_version() -> str:
    """Return the version without the build, e.g. ``2026.4.1``."""
    import openvino

    version: str = openvino.get_version()
    return version.partition("-")[0]


def read_network(path: Path, purpose: str) -> Any:
    """Read an OpenVINO IR or an ONNX file as an ``openvino.Model``.

    Args:
        path: ``….xml`` with its ``….bin`` beside it, or ``….onnx``.
        purpose: What needs it, for the error.

    Raises:
        EngineError: The file cannot be read as a model.
        MissingExtraError: OpenVINO is not installed.
    """
    try:
        return openvino_core(purpose).read_model(path)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO {openvino_version()} cannot read {path}: {_shortened(error)}") from error


def compile_network(
    model: Any,
    device: str,
    purpose: str,
    *,
    threads: int | None = None,
    properties: Mapping[str, Any] | None = None,
) -> Any:
    """Compile a model for short latencies.

    Args:
        model: An ``openvino.Model``.
        device: OpenVINO's name of the device.
        purpose: What needs it, for the errors.
        threads: CPU threads; None: OpenVINO's choice, or on the CPU as many as this process may use where that is less
            (:func:`~reid_edge.system.threads.thread_limit`).
        properties: More of OpenVINO's properties, e.g. ``CACHE_DIR``.

    Returns:
        An ``openvino.CompiledModel``.

    Raises:
        EngineError: The device cannot run the model with these properties.
        MissingExtraError: OpenVINO is not installed.
    """
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **(properties or {})}
    if threads is None and device == "CPU":
        threads = thread_limit()
    if threads is not None:
        chosen["INFERENCE_NUM_THREADS"] = threads
    core = openvino_core(purpose)
    try:
        return core.compile_model(model, device, chosen)
    except RuntimeError as error:  # e.g. bf16 where ONEDNN_MAX_CPU_ISA forbids it
        raise EngineError(
            f"{purpose}: OpenVINO {openvino_version()} cannot compile the model for {device} (devices here: "
            f"{_devices(core)}): {_shortened(error)}"
        ) from error


class OpenVINOEngine:
    """Runs an OpenVINO IR: static batches, each compiled on first use, split among streams where tuning chose so."""

    _purpose = "the OpenVINO engine"

    def __init__(self, path: Path, artifact: Artifact, options: EngineOptions) -> None:
        core = openvino_core(self._purpose)
        if options.device not in core.available_devices:
            raise EngineError(f"OpenVINO has no device '{options.device}' here; it has {_devices(core)}.")
        if options.cache_dir is not None:
            _make_cache(options.cache_dir)
        self._path = path
        self._device = options.device
        self._execution = artifact.execution or Execution()
        self._threads = options.threads or self._execution.threads
        self._properties = _properties(artifact, self._execution, options)
        self._requests: dict[int, list[Any]] = {}
        self.batch_sizes: tuple[int, ...] | None = tuple(size for size in BATCH_SIZES if size <= artifact.max_batch)
        device_name = core.get_property(options.device, "FULL_DEVICE_NAME").strip()
        self.description = f"openvino {openvino_version()} {device_name}"

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
        """Make one request for each part that a batch of this size is computed in."""
        size, *rest = shape
        streams = self._execution.streams if size % self._execution.streams == 0 else 1
        model = read_network(self._path, self._purpose)
        model.reshape([size // streams, *rest])
        split = {"NUM_STREAMS": streams} if streams > 1 else {}  # not every device knows streams
        try:
            compiled = compile_network(
                model, self._device, self._purpose, threads=self._threads, properties=self._properties | split
            )
        except EngineError as error:
            raise EngineError(f"{self._path} ({self._execution}): {error}") from error
        requests = [compiled.create_infer_request() for _ in range(streams)]
        self._requests[size] = requests
        return requests


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _devices(core: Any) -> str:
    return ", ".join(core.available_devices)


def _make_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"OpenVINO cannot keep compiled models in {folder}: {error}") from error


def _output(request: Any) -> Features:
    features: Features = request.get_output_tensor().data
    return features


def _properties(artifact: Artifact, execution: Execution, options: EngineOptions) -> dict[str, Any]:
    # Without the hint a CPU with AMX or AVX512-BF16 runs "FP32" in bfloat16, and features drift from the checkpoint's.
    half = artifact.float_precision != "fp32" and options.device != "CPU"
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f16" if half else execution.float_type}
    if options.cache_dir is not None:
        properties["CACHE_DIR"] = str(options.cache_dir)
    return properties


def _shortened(error: Exception) -> str:
    return str(error).strip()[:500]
