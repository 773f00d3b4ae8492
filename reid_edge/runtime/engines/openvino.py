"""OpenVINO: the process's one core, compiled models, and the engine that makes features with them."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.errors import EngineError, EngineUnavailableError, MissingExtraError, shortened
from reid_edge.manifest import Artifact
from reid_edge.runtime.compiled_cache import CompiledCache, key_of, open_cache
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.system.cpu import cpu_flags, cpu_name, isa_limit
from reid_edge.system.threads import thread_limit
from reid_edge.tuning_record import Execution
from reid_edge.types import Features

#: A static batch of 8 takes 0.8 of a dynamic one's time (benchmarks/README.md); sizes between are put together.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)

#: Flags of CPUs that compute in float16.
HALF_FLAGS = ("amx_fp16", "fphp")
#: Devices that choose among others.
_VIRTUAL = ("AUTO", "MULTI", "HETERO")

_logger = logging.getLogger(__name__)
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


def read_network(model: bytes, weights: bytes, purpose: str, *, name: str = "the model") -> Any:
    """Read an OpenVINO IR as an ``openvino.Model``.

    Args:
        model: Content of ``….xml``.
        weights: Content of ``….bin``.
        purpose: What needs it, for the errors.
        name: Name of the model, for the errors.

    Raises:
        EngineError: They cannot be read as a model.
        MissingExtraError: OpenVINO is not installed.
    """
    core = openvino_core(purpose)
    try:
        return core.read_model(model, weights)
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO {openvino_version()} cannot read {name}: {shortened(str(error).strip())}"
        ) from error


def read_onnx(path: Path, purpose: str) -> Any:
    """Read an ONNX file, and the weights that it may name in files beside it, as an ``openvino.Model``.

    Args:
        path: ``….onnx``; changes to it after this have no effect.
        purpose: What needs it, for the errors.

    Raises:
        EngineError: It cannot be read as a model.
        MissingExtraError: OpenVINO is not installed.
    """
    core = openvino_core(purpose)
    try:
        return core.read_model(path, config={"ENABLE_MMAP": False})  # mapped weights change with the file
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO {openvino_version()} cannot read {path}: {shortened(str(error).strip())}"
        ) from error


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
        properties: More of OpenVINO's properties, e.g. ``NUM_STREAMS``.

    Returns:
        An ``openvino.CompiledModel``.

    Raises:
        EngineError: The device cannot run the model with these properties.
        MissingExtraError: OpenVINO is not installed.
    """
    core = openvino_core(purpose)
    try:
        return core.compile_model(model, device, _supported(core, device, _chosen(device, threads, properties or {})))
    except RuntimeError as error:  # e.g. bf16 where ONEDNN_MAX_CPU_ISA forbids it
        raise EngineError(
            f"{purpose}: OpenVINO {openvino_version()} cannot compile the model for {device} (devices here: "
            f"{_devices(core)}): {shortened(str(error).strip())}"
        ) from error


class OpenVINOEngine:
    """Runs an OpenVINO IR: static batches, each compiled on first use, split among streams where tuning chose so.

    Args:
        files: Contents of ``….xml`` and ``….bin`` by name; kept, since every batch size is compiled of them.
        artifact: Description of the files.
        options: Options of the engines.

    Raises:
        EngineUnavailableError: OpenVINO has no such device here.
        MissingExtraError: OpenVINO is not installed.
    """

    _purpose = "the OpenVINO engine"

    def __init__(self, files: Mapping[str, bytes], artifact: Artifact, options: EngineOptions) -> None:
        require_device(options.device, self._purpose)
        core = openvino_core(self._purpose)
        (self._name, self._model), (_, self._weights) = files.items()
        self._device = options.device
        self._execution = artifact.execution or Execution()
        self._threads = options.threads or self._execution.threads
        self._properties = _properties(artifact, self._execution, options)
        self._requests: dict[int, list[Any]] = {}
        self._cache = _open_cache(core, options)
        self.batch_sizes: tuple[int, ...] | None = tuple(size for size in BATCH_SIZES if size <= artifact.max_batch)
        device_name = options.device
        if not _is_virtual(options.device):
            device_name = core.get_property(options.device, "FULL_DEVICE_NAME").strip()
        self.description = f"openvino {openvino_version()} {device_name}"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        requests = self._requests.get(len(batch)) or self._make_requests(batch.shape)
        try:
            return _run(requests, batch)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot run {self._name} on {batch.shape}: {shortened(str(error).strip())}"
            ) from error

    def _make_requests(self, shape: tuple[int, ...]) -> list[Any]:
        """Make one request for each part that a batch of this size is computed in."""
        size, *rest = shape
        streams = self._execution.streams if size % self._execution.streams == 0 else 1
        split = {"NUM_STREAMS": streams} if streams > 1 else {}  # not every device knows streams
        compiled = self._compiled((size // streams, *rest), self._properties | split)
        requests = [compiled.create_infer_request() for _ in range(streams)]
        self._requests[size] = requests
        return requests

    def _compiled(self, shape: tuple[int, ...], properties: Mapping[str, Any]) -> Any:
        """Take the model compiled for a shape from the cache, or compile it and keep it there."""
        if self._cache is None:
            return self._compile(shape, properties)
        key = key_of(
            [self._environment(), shape, sorted(_chosen(self._device, self._threads, properties).items())],
            self._model,
            self._weights,
        )
        if (compiled := self._imported(key, properties)) is not None:
            return compiled
        compiled = self._compile(shape, properties)
        exported = io.BytesIO()
        try:
            compiled.export_model(exported)
        except RuntimeError as error:
            _logger.warning("OpenVINO cannot export the compiled %s: %s", self._name, shortened(str(error).strip()))
        else:
            self._cache.store(key, exported.getvalue())
        return compiled

    def _imported(self, key: str, properties: Mapping[str, Any]) -> Any:
        assert self._cache is not None
        if (held := self._cache.take(key)) is None:
            return None
        chosen = _chosen(self._device, self._threads, properties)
        try:
            core = openvino_core(self._purpose)
            compiled = core.import_model(held, self._device, _supported(core, self._device, chosen))
        except RuntimeError as error:
            self._cache.discard(key, shortened(str(error).strip()))
            return None
        self._cache.put_back(key)
        return compiled

    def _compile(self, shape: tuple[int, ...], properties: Mapping[str, Any]) -> Any:
        model = read_network(self._model, self._weights, self._purpose, name=self._name)
        try:
            model.reshape(list(shape))
        except RuntimeError as error:
            raise EngineError(
                f"{self._name} takes no input of {shape}, as its manifest says: {shortened(str(error).strip())}"
            ) from error
        try:
            return compile_network(model, self._device, self._purpose, threads=self._threads, properties=properties)
        except EngineError as error:
            raise EngineError(f"{self._name} ({self._execution}): {error}") from error

    def _environment(self) -> list[object]:
        """List all but model and options that a compiled model depends on."""
        import openvino

        full_name = openvino_core(self._purpose).get_property(self._device, "FULL_DEVICE_NAME")
        return [openvino.get_version(), self._device, full_name, cpu_name(), sorted(cpu_flags()), isa_limit()]


def _run(requests: Sequence[Any], batch: Batch) -> Features:
    if len(requests) == 1:
        requests[0].infer([batch], share_inputs=True)
        return _output(requests[0]).astype(np.float32)  # a copy: the next call writes there
    for request, part in zip(requests, np.split(batch, len(requests)), strict=True):
        request.start_async([part], share_inputs=True)
    for request in requests:
        request.wait()
    return np.concatenate([_output(request) for request in requests]).astype(np.float32, copy=False)


def _chosen(device: str, threads: int | None, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenVINO's properties for short latencies on a device."""
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **properties}
    if threads is None and device == "CPU":
        threads = thread_limit()
    if threads is not None:
        chosen["INFERENCE_NUM_THREADS"] = threads
    return chosen


def has_device(available: Sequence[str], device: str) -> bool:
    """Return True for a device that OpenVINO has, and for one that chooses among others, e.g. ``AUTO:GPU,CPU``.

    Args:
        available: OpenVINO's names: ``GPU`` where there is one GPU, ``GPU.0`` and ``GPU.1`` where there are two.
        device: The name that was asked for.
    """
    kind, _, number = device.partition(".")
    if _is_virtual(device):
        named = device.partition(":")[2].split(",") if ":" in device else []
        return all(has_device(available, name.strip("-^ ").partition("(")[0]) for name in named)
    return device in available or (number == "0" and kind in available) or (not number and f"{kind}.0" in available)


def require_device(device: str, purpose: str) -> None:
    """Raise EngineUnavailableError where OpenVINO has no such device here, and MissingExtraError without OpenVINO."""
    core = openvino_core(purpose)
    if not has_device(core.available_devices, device):
        raise EngineUnavailableError(f"OpenVINO has no device '{device}' here; it has {_devices(core)}.")


def hardware_names(device: str, purpose: str) -> str:
    """Name the hardware besides the CPU that a device of OpenVINO computes on; "" where there is none here.

    Args:
        device: OpenVINO's name of it; one that chooses among others may choose any that is here.
        purpose: What needs it, for the error.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    core = openvino_core(purpose)
    available = core.available_devices
    chosen = available if _is_virtual(device) else [device] if has_device(available, device) else []
    names = [core.get_property(one, "FULL_DEVICE_NAME").strip() for one in chosen if one != "CPU"]
    return ", ".join(names)


def is_openvinos(device: str) -> bool:
    """Return True for a name that only OpenVINO gives to a device, whether it is here or not, e.g. ``GPU.1``."""
    return device.partition(".")[0] in ("GPU", "NPU") or _is_virtual(device)


def _is_virtual(device: str) -> bool:
    return device.partition(":")[0] in _VIRTUAL


def _supported(core: Any, device: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out properties that the device's plugin does not know, and would refuse.

    On the CPU nothing is left out: a refusal there is an answer, e.g. to bfloat16.  A device that chooses among others
    passes on what it does not know itself; without the type a CPU with AVX512-BF16 would compute in bfloat16.
    """
    if device == "CPU" or _is_virtual(device):
        return dict(properties)
    known = core.get_property(device, "SUPPORTED_PROPERTIES")
    return {name: value for name, value in properties.items() if name in known}


def _open_cache(core: Any, options: EngineOptions) -> CompiledCache | None:
    if options.cache_dir is None or _is_virtual(options.device):
        return None
    if "EXPORT_IMPORT" not in core.get_property(options.device, "OPTIMIZATION_CAPABILITIES"):
        return None
    return open_cache(options.cache_dir / "compiled")


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _devices(core: Any) -> str:
    return ", ".join(core.available_devices)


def _output(request: Any) -> Features:
    features: Features = request.get_output_tensor().data
    return features


def _properties(artifact: Artifact, execution: Execution, options: EngineOptions) -> dict[str, Any]:
    # Without the hint a CPU with AMX or AVX512-BF16 runs "FP32" in bfloat16, and features drift from the checkpoint's.
    # A device that chooses others may choose the CPU, where float16 is emulated and less exact than a GPU's.
    if artifact.execution is None:
        half = artifact.precision != "fp32" and not options.on_cpu and not _is_virtual(options.device)
        return {"INFERENCE_PRECISION_HINT": "f16" if half else execution.float_type}
    emulated = execution.float_type == "f16" and options.on_cpu and not cpu_flags().intersection(HALF_FLAGS)
    return {"INFERENCE_PRECISION_HINT": "f32" if emulated else execution.float_type}  # else what tuning chose
