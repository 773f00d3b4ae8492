"""TensorRT 10.3 to 11 and TensorRT-RTX: the engine that runs a plan on the kind of device where it was built."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import EngineError, EngineUnavailableError, GpuError, GpuMemoryError, PlanMismatchError
from reid_edge.manifest import Artifact, PlanStamp
from reid_edge.runtime.compiled_cache import CompiledCache, key_of, open_cache
from reid_edge.runtime.cuda import Gpu, GpuStream, driver_version, open_gpu
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.runtime.tensorrt_library import TENSORRT_RTX, library_log, load_library, make, why_not_on
from reid_edge.types import Features

REBUILD = "Build it on this device: reid-edge build BUNDLE --engine tensorrt --force"
#: Memory sizes of one module differ by what its kernel reserves; those of two modules by a factor of two.
_MEMORY_TOLERANCE = 0.25
#: Batch sizes that have an execution context and a recording of their own; further ones share one context.
MAX_RECORDED = 16

_logger = logging.getLogger(__name__)


def stamp_device(gpu: Gpu | None) -> dict[str, Any]:
    """Return the fields of a :class:`~reid_edge.manifest.PlanStamp` that describe the GPU."""
    if gpu is None:
        return {"device": "", "compute_capability": ""}
    return {
        "device": gpu.name,
        "compute_capability": gpu.compute_capability,
        "multiprocessors": gpu.multiprocessors,
        "memory_bytes": gpu.memory_bytes,
    }


def check_stamp(stamp: PlanStamp, library: ModuleType, gpu: Gpu) -> None:
    """Refuse a plan that was built for another device or library version.

    A plan that ``tensorrt_rtx`` built without a GPU runs on every RTX card since Ampere.

    Raises:
        PlanMismatchError: Other library version or other device.
    """
    if library.__version__ != stamp.version:
        raise PlanMismatchError(
            f"the plan was built with {stamp.library} {stamp.version}, here is {library.__version__}. {REBUILD}"
        )
    if obstacle := why_not_on(library, gpu):
        raise PlanMismatchError(obstacle)
    there = Gpu(stamp.device, stamp.compute_capability, stamp.multiprocessors, stamp.memory_bytes)
    if stamp.device and not _same_device(there, gpu):
        raise PlanMismatchError(f"the plan was built for {there}; here is {gpu}. {REBUILD}")


def _same_device(there: Gpu, here: Gpu) -> bool:
    """Compare what tells devices apart; all of a Jetson family have one name and compute capability."""
    if (there.name, there.compute_capability) != (here.name, here.compute_capability):
        return False
    if there.multiprocessors and here.multiprocessors and there.multiprocessors != here.multiprocessors:
        return False
    sizes = sorted((there.memory_bytes, here.memory_bytes))
    return 0 in sizes or sizes[1] <= (1 + _MEMORY_TOLERANCE) * sizes[0]


class TensorRTEngine:
    """Runs a plan: memory is allocated once, and the work of each batch size is recorded as a CUDA graph.

    Args:
        files: Content of the plan by its name.
        artifact: Description of the plan.
        options: Options of the engines; the cache keeps what TensorRT-RTX compiles on first use.

    Raises:
        EngineUnavailableError: There is no GPU or no library here.
        PlanMismatchError: The plan is for another device or version.
        GpuMemoryError: The GPU has no memory left.
        EngineError: The plan cannot be set up.
    """

    batch_sizes: tuple[int, ...] | None = None

    def __init__(self, files: Mapping[str, bytes], artifact: Artifact, options: EngineOptions) -> None:
        if not options.on_cpu:
            raise EngineUnavailableError(f"TensorRT plans run on the first GPU of CUDA; leave out '{options.device}'.")
        (name, plan), *_ = files.items()
        stamp = artifact.plan
        if stamp is None:
            raise EngineError(f"{name} has no plan stamp in the manifest. {REBUILD}")
        try:
            gpu = open_gpu()  # before the library is loaded: it takes 100 MB
        except EngineUnavailableError as error:
            raise EngineUnavailableError(f"TensorRT plans need a GPU: {error}") from error
        self._library = library = load_library(stamp.library)
        check_stamp(stamp, library, gpu)
        self._name, self._max_batch = name, artifact.max_batch
        self.description = f"{stamp.library} {library.__version__} {gpu.name}"
        self._runs: dict[int, Callable[[], None]] = {}
        self._shared: Any = None
        self._compiled = _CompiledKernels.of(library, options, [library.__version__, gpu, driver_version()], plan)
        self._stream = GpuStream()
        try:
            self._set_up(plan)
        except BaseException:
            self.close()
            raise

    def _set_up(self, plan: bytes) -> None:
        library = self._library
        self._runtime = make(library, "a runtime", lambda: library.Runtime(library_log(library)))
        try:
            self._plan = make(library, "an engine of the plan", lambda: self._runtime.deserialize_cuda_engine(plan))
        except GpuMemoryError:
            raise
        except EngineError as error:
            raise PlanMismatchError(f"{self._name} was refused: {error}. {REBUILD}") from error
        self._input, self._output = tensor_names(library, self._plan)
        self._profiles = _profiles(self._plan, self._input)
        crop = _shape(self._plan, self._input)[1:]
        self._crops, self._crop_bytes = self._buffer(self._input, crop)
        self._features, self._feature_bytes = self._buffer(self._output, _shape(self._plan, self._output)[1:])
        self._workspace_bytes = int(self._plan.device_memory_size_v2)
        self._workspace = self._stream.workspace(self._workspace_bytes)

    def _buffer(self, tensor: str, shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], int]:
        """Allocate memory for the largest batch of a tensor; returns the host's view, and the bytes of one row."""
        dtype = _dtype(self._library, self._plan, tensor)
        row_bytes = int(dtype.itemsize * np.prod(shape))
        buffer = self._stream.buffer(self._max_batch * row_bytes)
        self._buffers = {**getattr(self, "_buffers", {}), tensor: buffer}
        return buffer.host.view(dtype).reshape(self._max_batch, *shape), row_bytes

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        size = len(batch)
        if batch.shape[1:] != self._crops.shape[1:] or batch.dtype != self._crops.dtype or size > self._max_batch:
            raise EngineError(
                f"{self._name} takes up to {self._max_batch} × {self._crops.shape[1:]} {self._crops.dtype}, "
                f"got {batch.shape} {batch.dtype}. {REBUILD}"
            )
        self._stream.use()
        run = self._runs.get(size) or self._prepare(size)
        np.copyto(self._crops[:size], batch)
        run()
        self._stream.wait()
        return np.array(self._features[:size], np.float32)

    def _prepare(self, size: int) -> Callable[[], None]:
        """Run a batch size once, as TensorRT wants before a recording, and record it."""
        if len(self._runs) >= MAX_RECORDED:
            return self._shared_run(size)
        run = self._work(self._context(size, self._profile_of(size)), size)
        run()
        self._stream.wait()
        if self._compiled is not None:
            self._compiled.keep()  # TensorRT-RTX compiles for new shapes, and records by itself
        else:
            run = self._recorded(run, size)
        self._runs[size] = run
        return run

    def _profile_of(self, size: int) -> int:
        """Return the number of the narrowest optimisation profile that holds a batch size; 0 where none does."""
        held = [(most - least, index) for index, (least, most) in enumerate(self._profiles) if least <= size <= most]
        return min(held, default=(0, 0))[1]

    def _recorded(self, run: Callable[[], None], size: int) -> Callable[[], None]:
        try:
            return self._stream.record(run)
        except GpuMemoryError:
            raise
        except EngineError as error:
            _logger.warning("%s: a batch of %d cannot be recorded, it runs unrecorded: %s", self._name, size, error)
            return run

    def _shared_run(self, size: int) -> Callable[[], None]:
        """Return the work of a batch size in the context of all that have none of their own, by the first profile."""
        if self._shared is None:
            self._shared = self._context(size)
        self._set_shape(self._shared, size)
        return self._work(self._shared, size)

    def _context(self, size: int, profile: int = 0) -> Any:
        """Make an execution context for one batch size; all share one workspace, since they run in turn.

        Args:
            size: The first that it runs.
            profile: Number of the plan's optimisation profile.
        """
        context = make(self._library, "an execution context", self._make_context)
        several = len(self._profiles) > 1  # some releases give only the first context a profile by themselves
        if several and not context.set_optimization_profile_async(profile, self._stream.handle):
            raise EngineError(f"{self._name} does not take its profile {profile} for a batch of {size}. {REBUILD}")
        context.set_device_memory(self._workspace, self._workspace_bytes)
        for tensor, buffer in self._buffers.items():
            if not context.set_tensor_address(tensor, buffer.address):
                raise EngineError(f"{self._name}: TensorRT does not take the address of '{tensor}'. {REBUILD}")
        self._set_shape(context, size)
        return context

    def _make_context(self) -> Any:
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._compiled is None:
            return self._plan.create_execution_context(strategy)
        return self._plan.create_execution_context(self._compiled.configuration(self._library, self._plan, strategy))

    def _set_shape(self, context: Any, size: int) -> None:
        if not context.set_input_shape(self._input, (size, *self._crops.shape[1:])):
            raise EngineError(f"{self._name} does not take a batch of {size}, as its manifest says. {REBUILD}")

    def _work(self, context: Any, size: int) -> Callable[[], None]:
        """Return what gives the stream the work of one batch size; it holds no engine, so that one is freed at once."""
        stream, crops, features = self._stream, self._buffers[self._input], self._buffers[self._output]
        crop_bytes, feature_bytes = size * self._crop_bytes, size * self._feature_bytes
        library, name = self._library, self._name

        def work() -> None:
            stream.upload(crops, crop_bytes)
            if not context.execute_async_v3(stream.handle):
                raise GpuError(
                    f"TensorRT could not run {name} on a batch of {size}: {library_log(library).take_errors()}"
                )
            stream.download(features, feature_bytes)

        return work

    def close(self) -> None:
        """Free everything; the engine cannot be used afterwards."""
        for name in ("_crops", "_features"):
            self.__dict__.pop(name, None)
        if (stream := self.__dict__.pop("_stream", None)) is not None:
            stream.close()
        for name in ("_runs", "_shared", "_compiled", "_plan", "_runtime"):  # in this order: each needs the next
            self.__dict__.pop(name, None)

    def __del__(self) -> None:
        self.close()


class _CompiledKernels:
    """What TensorRT-RTX has compiled for this GPU, kept between starts.

    Args:
        cache: Where it is kept; None: nowhere.
        key: Of library, driver, GPU and plan.
    """

    def __init__(self, cache: CompiledCache | None, key: str) -> None:
        self._cache, self._key = cache, key
        self._kernels: Any = None
        self._kept = b""

    @classmethod
    def of(cls, library: ModuleType, options: EngineOptions, facts: list[Any], plan: bytes) -> _CompiledKernels | None:
        """Open what is kept for a plan; None for the full library, whose plans hold their kernels."""
        if library.__name__ != TENSORRT_RTX:
            return None
        cache = open_cache(options.cache_dir / "compiled") if options.cache_dir else None
        return cls(cache, key_of([library.__name__, *map(str, facts)], plan))

    def configuration(self, library: ModuleType, plan: Any, strategy: Any) -> Any:
        """Make the configuration of an execution context that uses and extends what is kept."""
        configuration = make(library, "a runtime configuration", plan.create_runtime_config)
        configuration.set_execution_context_allocation_strategy(strategy)
        configuration.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # By default they are compiled beside the first batches, and would not be there yet when they are kept.
        at_once = library.DynamicShapesKernelSpecializationStrategy.EAGER
        configuration.dynamic_shapes_kernel_specialization_strategy = at_once
        if self._kernels is None:
            self._kernels = make(library, "a runtime cache", configuration.create_runtime_cache)
            self._fill()
        configuration.set_runtime_cache(self._kernels)
        return configuration

    def _fill(self) -> None:
        if self._cache is None or (kept := self._cache.take(self._key)) is None:
            return
        if self._kernels.deserialize(kept):
            self._kept = kept
            self._cache.put_back(self._key)
        else:
            self._cache.discard(self._key, "TensorRT-RTX refuses it")

    def keep(self) -> None:
        """Keep what was compiled since."""
        if self._cache is None or self._kernels is None or (kernels := self._kernels.serialize()) is None:
            return
        if (content := bytes(kernels)) != self._kept:
            self._cache.store(self._key, content)
            self._kept = content


def _profiles(plan: Any, tensor: str) -> list[tuple[int, int]]:
    """List smallest and largest batch of each optimisation profile."""
    shapes = [plan.get_tensor_profile_shape(tensor, index) for index in range(plan.num_optimization_profiles)]
    return [(int(least[0]), int(most[0])) for least, _usual, most in shapes]


def _shape(plan: Any, tensor: str) -> tuple[int, ...]:
    return tuple(int(size) for size in plan.get_tensor_shape(tensor))


def _dtype(library: ModuleType, plan: Any, tensor: str) -> np.dtype[Any]:
    found = plan.get_tensor_dtype(tensor)
    for name, dtype in (("UINT8", np.uint8), ("FLOAT", np.float32)):
        if found == getattr(library.DataType, name):
            return np.dtype(dtype)
    raise EngineError(f"'{tensor}' of the plan is {found}; uint8 or float32 was expected. {REBUILD}")


def tensor_names(library: ModuleType, plan: Any) -> tuple[str, str]:
    """Return the names of a plan's input and output."""
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    inputs = [name for name in names if plan.get_tensor_mode(name) == library.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    return inputs[0], outputs[0]
