"""TensorRT 10.3 to 11 and TensorRT-RTX: library, GPU, and the engine that runs a plan where it was built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from reid_edge.errors import EngineError, EngineUnavailableError, PlanMismatchError
from reid_edge.manifest import Artifact, PlanStamp
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.types import Features

#: In order of preference: the full library, then the one for RTX cards, which installs from PyPI.
LIBRARIES = ("tensorrt", "tensorrt_rtx")

INSTALL_HINT = (
    "On a Jetson, TensorRT comes with JetPack: make the environment with "
    "'python3 -m venv --system-site-packages'. Elsewhere: pip install 'reid-edge[tensorrt]', "
    "or 'reid-edge[tensorrt-rtx]' for GeForce and RTX cards."
)
REBUILD = "Build it on this device: reid-edge build BUNDLE --engine tensorrt --force"


@dataclass(frozen=True)
class Gpu:
    """The GPU that CUDA calls device 0."""

    name: str
    compute_capability: str


def load_library(name: str | None = None) -> ModuleType:
    """Import TensorRT.

    Args:
        name: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.

    Raises:
        EngineUnavailableError: It is not installed.
    """
    for candidate in (name,) if name else LIBRARIES:
        try:
            library = importlib.import_module(candidate)
        except ImportError:
            continue
        if hasattr(library, "Builder"):
            return library
    raise EngineUnavailableError(f"no {name or 'TensorRT'} library is installed. {INSTALL_HINT}")


def make_logger(library: ModuleType) -> Any:
    """Make a logger that passes errors only."""
    return library.Logger(library.Logger.ERROR)


def find_gpu() -> Gpu | None:
    """Return the first GPU, or None without one, without its driver or without cuda-python."""
    try:
        runtime = cuda_runtime()
    except EngineUnavailableError:
        return None
    error, count = runtime.cudaGetDeviceCount()
    if int(error) != 0 or not count:
        return None
    properties = cuda_call(runtime.cudaGetDeviceProperties, 0)
    name = properties.name.split(b"\0", 1)[0].decode() if isinstance(properties.name, bytes) else properties.name
    return Gpu(name, f"{properties.major}.{properties.minor}")


def cuda_runtime() -> Any:
    """Import the CUDA runtime's Python binding, under either of its two names.

    Raises:
        EngineUnavailableError: It is not installed.
    """
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise EngineUnavailableError(f"the TensorRT engine needs the package 'cuda-python'. {INSTALL_HINT}")


def cuda_call(function: Any, *arguments: Any) -> Any:
    """Call the CUDA runtime and return its result, without the status in front.

    Raises:
        EngineError: CUDA reported an error.
    """
    status, *results = function(*arguments)
    if int(status) != 0:
        raise EngineError(f"{function.__name__} failed: {status}")
    return results[0] if len(results) == 1 else results


def check_stamp(stamp: PlanStamp, library: ModuleType, gpu: Gpu) -> None:
    """Refuse a plan that was built for another device or library version.

    A plan that ``tensorrt_rtx`` built without a GPU runs on every RTX card.

    Raises:
        PlanMismatchError: Other library version or other device.
    """
    if library.__version__ != stamp.version:
        raise PlanMismatchError(
            f"the plan was built with {stamp.library} {stamp.version}, here is {library.__version__}. {REBUILD}"
        )
    if stamp.device and (stamp.device, stamp.compute_capability) != (gpu.name, gpu.compute_capability):
        raise PlanMismatchError(
            f"the plan was built for {stamp.device} (compute capability {stamp.compute_capability}), "
            f"here is {gpu.name} ({gpu.compute_capability}). {REBUILD}"
        )


class TensorRTEngine:
    """Runs a plan with buffers for its largest batch, allocated once.

    Args:
        files: Content of the plan by its name.
        artifact: Description of the plan.
    """

    batch_sizes: tuple[int, ...] | None = None

    def __init__(self, files: Mapping[str, bytes], artifact: Artifact, _options: EngineOptions) -> None:
        (name, plan), *_ = files.items()
        stamp = artifact.plan
        if stamp is None:
            raise EngineError(f"{name} has no plan stamp in the manifest. {REBUILD}")
        gpu = find_gpu()
        if gpu is None:  # before the library is loaded: it takes 100 MB
            raise EngineUnavailableError("TensorRT plans need a GPU, and CUDA finds none on this machine.")
        library = load_library(stamp.library)
        check_stamp(stamp, library, gpu)
        self._cuda = cuda_runtime()
        runtime = library.Runtime(make_logger(library))
        self._plan = runtime.deserialize_cuda_engine(plan)
        if self._plan is None:
            raise PlanMismatchError(f"{stamp.library} {stamp.version} refused {name}. {REBUILD}")
        self._runtime = runtime
        self._context = self._plan.create_execution_context()
        self._stream = int(cuda_call(self._cuda.cudaStreamCreate))
        self._input, self._output = _tensor_names(library, self._plan)
        dimensions = int(self._plan.get_tensor_shape(self._output)[-1])
        self._features: Features = np.empty((artifact.max_batch, dimensions), np.float32)
        self._device_input = self._allocate(self._input, artifact.max_batch * self._bytes_per_crop(library))
        self._device_output = self._allocate(self._output, self._features.nbytes)
        self.description = f"{stamp.library} {library.__version__} {gpu.name}"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        batch = np.ascontiguousarray(batch)
        features = self._features[: len(batch)]
        kinds = self._cuda.cudaMemcpyKind
        self._context.set_input_shape(self._input, batch.shape)
        self._copy(self._device_input, batch.ctypes.data, batch.nbytes, kinds.cudaMemcpyHostToDevice)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("TensorRT could not run the plan; its log on standard error gives the reason.")
        self._copy(features.ctypes.data, self._device_output, features.nbytes, kinds.cudaMemcpyDeviceToHost)
        cuda_call(self._cuda.cudaStreamSynchronize, self._stream)
        return features.copy()

    def _allocate(self, tensor: str, size: int) -> int:
        address = int(cuda_call(self._cuda.cudaMalloc, size))
        self._context.set_tensor_address(tensor, address)
        return address

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        cuda_call(self._cuda.cudaMemcpyAsync, target, source, size, kind, self._stream)

    def _bytes_per_crop(self, library: ModuleType) -> int:
        item = 1 if self._plan.get_tensor_dtype(self._input) == library.DataType.UINT8 else 4
        return int(item * np.prod(tuple(self._plan.get_tensor_shape(self._input))[1:]))

    def __del__(self) -> None:
        for address in (getattr(self, "_device_input", None), getattr(self, "_device_output", None)):
            if address is not None:
                self._cuda.cudaFree(address)
        if (stream := getattr(self, "_stream", None)) is not None:
            self._cuda.cudaStreamDestroy(stream)


def _tensor_names(library: ModuleType, plan: Any) -> tuple[str, str]:
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    inputs = [name for name in names if plan.get_tensor_mode(name) == library.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    return inputs[0], outputs[0]
