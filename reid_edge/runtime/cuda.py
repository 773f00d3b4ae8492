"""CUDA by its driver's library alone: the GPU, memory, a stream and recorded work, with errors that say what to do.

No package is needed besides the driver.  The functions and their numbers are those of NVIDIA's "CUDA Driver API".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_ulonglong, c_void_p
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import EngineUnavailableError, GpuError, GpuMemoryError

#: Name under which the driver is loaded; it comes with the driver, and with JetPack.
LIBRARY = "libcuda.so.1"
#: Every function that is called, with the types of its arguments; each returns a status.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxSetFlags_v2": (c_int, c_uint),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}
_SUCCESS, _OUT_OF_MEMORY, _NO_DEVICE = 0, 2, 100
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
#: A thread that waits for the GPU sleeps, and leaves its core to others.
_BLOCKING_SYNC = 4
#: A stream that does not wait for the work of others in this process.
_NON_BLOCKING = 1
#: A recording that calls of other threads do not disturb.
_CAPTURE_THREAD_LOCAL = 1
_LONGEST_NAME = 256

_NO_DRIVER = (
    "the driver's library libcuda.so.1 is not here ({reason}). On a PC, install NVIDIA's driver; in a container, start "
    "it with '--runtime nvidia' (Jetson) or '--gpus all'; on a Jetson, flash JetPack 6.1 or later"
)
_ACCESS = (
    "the user needs the groups of the GPU's device files: 'sudo usermod -aG video,render USER', then log in again (a "
    "service: SupplementaryGroups=video render; a container: --group-add video --group-add "
    '"$(getent group render | cut -d: -f3)")'
)
_CONTAINER = "in a container, start it with '--runtime nvidia' (Jetson) or '--gpus all'"
_DRIVER = "install the driver that this GPU and this CUDA need, then restart the machine"
_RESTART = "restart this program; if it comes again, look for 'NVRM' or 'nvgpu' in the output of 'dmesg'"
#: What helps against a status.  Any other: see :data:`_RESTART`.
_REMEDIES: dict[int, str] = {
    1: "please report this with the output of 'reid-edge doctor'",
    _OUT_OF_MEMORY: "stop other programs that use the GPU, or use a smaller --max-batch or model.max_batch; on a "
    "Jetson, GPU and CPU share the memory",
    3: f"{_CONTAINER}; {_ACCESS}",
    34: f"libcuda.so.1 is the stub that links programs, not a driver: {_CONTAINER}; else {_DRIVER}",
    46: "another program has the GPU for itself, or it has failed: look at 'nvidia-smi'",
    _NO_DEVICE: f"{_CONTAINER}; {_ACCESS}; CUDA_VISIBLE_DEVICES must not hide it",
    101: f"{_CONTAINER}; {_ACCESS}",
    304: _ACCESS,
    800: _ACCESS,
    801: f"{_CONTAINER}; {_ACCESS}",
    802: f"{_RESTART}; the GPU may still be starting",
    803: _DRIVER,
    804: f"{_DRIVER}; in a container, do not use its CUDA compatibility libraries on this GPU",
    999: f"{_ACCESS}; {_CONTAINER}; after an update of the driver, restart the machine",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA finds.

    Attributes:
        name: e.g. ``Orin``, which all modules of that family are called.
        compute_capability: e.g. ``8.7``.
        multiprocessors: Number of streaming multiprocessors, which tells modules of a family apart; 0: not known.
        memory_bytes: Memory that CUDA sees; 0: not known.
        shares_memory: Whether that is the CPU's memory too, as on a Jetson.
    """

    name: str
    compute_capability: str
    multiprocessors: int = 0
    memory_bytes: int = 0
    shares_memory: bool = False

    @property
    def model(self) -> str:
        """Name it so that modules of one family differ, e.g. ``Orin with 8 multiprocessors``."""
        return f"{self.name} with {self.multiprocessors} multiprocessors" if self.multiprocessors else self.name

    def __str__(self) -> str:
        """Describe it for a person."""
        size = f", {self.multiprocessors} multiprocessors" if self.multiprocessors else ""
        memory = f", {self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else ""
        return f"{self.name}, compute capability {self.compute_capability}{size}{memory}"


def open_gpu(index: int = 0) -> Gpu:
    """Describe a GPU.

    Args:
        index: CUDA's number of it.

    Raises:
        EngineUnavailableError: There is no driver, it refuses this process, or it finds no such GPU; with the remedy.
        GpuError: The driver fails otherwise.
    """
    driver = _driver()
    device, number = c_int(), c_int()
    driver("cuDeviceGetCount", byref(number))
    if number.value == 0:
        raise EngineUnavailableError(f"CUDA finds no GPU: {_REMEDIES[_NO_DEVICE]}.")
    if index >= number.value:
        raise EngineUnavailableError(f"CUDA finds no GPU {index}; the last that it has is {number.value - 1}.")
    driver("cuDeviceGet", byref(device), index)
    name, memory = ctypes.create_string_buffer(_LONGEST_NAME), c_size_t()
    driver("cuDeviceGetName", name, _LONGEST_NAME, device)
    driver("cuDeviceTotalMem_v2", byref(memory), device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{_attribute(driver, device, _MAJOR)}.{_attribute(driver, device, _MINOR)}",
        multiprocessors=_attribute(driver, device, _MULTIPROCESSORS),
        memory_bytes=memory.value,
        shares_memory=_attribute(driver, device, _INTEGRATED) == 1,
    )


def find_gpu(index: int = 0) -> Gpu | None:
    """Return a GPU by CUDA's number; None without it, without the driver, or where the driver refuses this process."""
    try:
        return open_gpu(index)
    except (EngineUnavailableError, GpuError):
        return None


def driver_version() -> str:
    """Return the newest version of CUDA that the driver knows, e.g. ``12.6``.

    Raises:
        EngineUnavailableError: There is no driver.
        GpuError: The driver fails.
    """
    version = c_int()
    _driver()("cuDriverGetVersion", byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


class CudaDriver:
    """The driver's functions; each call is checked.

    Args:
        path: Name or path of the library.

    Raises:
        EngineUnavailableError: It cannot be loaded, or is too old.
    """

    def __init__(self, path: str) -> None:
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            raise EngineUnavailableError(f"{_NO_DRIVER.format(reason=error)}.") from error
        self._functions: dict[str, Any] = {}
        for name, arguments in PROTOTYPES.items():
            function = getattr(library, name, None)
            if function is None:
                raise EngineUnavailableError(f"the driver is too old, it has no {name}: {_DRIVER}.")
            function.argtypes, function.restype = arguments, c_int
            self._functions[name] = function

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            GpuMemoryError: No memory is left.
            GpuError: The driver reported another error.
        """
        status = self._functions[name](*arguments)
        if status != _SUCCESS:
            kind = GpuMemoryError if status == _OUT_OF_MEMORY else GpuError
            raise kind(f"{name} failed: {self._words(status)}. To mend it: {remedy(status)}.")

    def try_to(self, name: str, *arguments: Any) -> None:
        """Call a function, and let its status be: to release something, also while the process ends."""
        self._functions[name](*arguments)

    def start(self) -> None:
        """Start the driver for this process.

        Raises:
            EngineUnavailableError: It refuses, or finds no GPU.
        """
        status = self._functions["cuInit"](0)
        if status != _SUCCESS:
            raise EngineUnavailableError(f"CUDA cannot start: {self._words(status)}. To mend it: {remedy(status)}.")

    def _words(self, status: int) -> str:
        """Return a status as NVIDIA's documentation names it, with the driver's explanation."""
        name, text = c_char_p(), c_char_p()
        self._functions["cuGetErrorName"](status, byref(name))
        self._functions["cuGetErrorString"](status, byref(text))
        words = [part.value.decode(errors="replace") for part in (name, text) if part.value]
        return f"error {status} ({', '.join(words)})" if words else f"error {status}"


def remedy(status: int) -> str:
    """Say what helps against a status of the driver."""
    return _REMEDIES.get(status, _RESTART)


@cache
def _load(path: str) -> CudaDriver:
    driver = CudaDriver(path)
    driver.start()
    return driver


def _driver() -> CudaDriver:
    return _load(LIBRARY)


def _attribute(driver: CudaDriver, device: c_int, number: int) -> int:
    value = c_int()
    driver("cuDeviceGetAttribute", byref(value), number, device)
    return value.value


class GpuBuffer:
    """Memory at a fixed place on the host and its counterpart on the GPU.

    Attributes:
        host: The host's memory, bytes, which the GPU reads and writes without a detour.
        address: Address on the GPU.
    """

    def __init__(self, driver: CudaDriver, size: int, release: ExitStack) -> None:
        pointer, address = c_void_p(), c_uint64()
        driver("cuMemHostAlloc", byref(pointer), size, 0)
        release.callback(driver.try_to, "cuMemFreeHost", pointer)
        driver("cuMemAlloc_v2", byref(address), size)
        release.callback(driver.try_to, "cuMemFree_v2", address)
        assert pointer.value is not None
        self.address = address.value
        self.host: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer.value))


class GpuStream:
    """A queue of work for the first GPU; its memory and recordings go with it.

    Threads may use it in turn, after :meth:`use`.

    Raises:
        EngineUnavailableError: There is no GPU, or no driver.
        GpuMemoryError: No memory is left.
        GpuError: The driver fails.
    """

    def __init__(self) -> None:
        self._release = ExitStack()
        self._driver = driver = _driver()
        device = c_int()
        driver("cuDeviceGet", byref(device), 0)
        driver.try_to("cuDevicePrimaryCtxSetFlags_v2", device, _BLOCKING_SYNC)  # a hint
        self._context = c_void_p()
        # The context that TensorRT uses, too.  It is never given back: others in this process may have it.
        driver("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self.use()
        stream = c_void_p()
        driver("cuStreamCreate", byref(stream), _NON_BLOCKING)
        assert stream.value is not None
        self.handle: int = stream.value
        self._release.callback(driver.try_to, "cuStreamDestroy_v2", stream)

    def use(self) -> None:
        """Let this thread work on the GPU."""
        self._driver("cuCtxSetCurrent", self._context)

    def buffer(self, size: int) -> GpuBuffer:
        """Allocate memory on the host and on the GPU, bytes; it is freed with the stream."""
        return GpuBuffer(self._driver, size, self._release)

    def workspace(self, size: int) -> int:
        """Allocate memory on the GPU alone, bytes; it is freed with the stream.  Returns its address."""
        address = c_uint64()
        self._driver("cuMemAlloc_v2", byref(address), max(size, 1))
        self._release.callback(self._driver.try_to, "cuMemFree_v2", address)
        return address.value

    def upload(self, buffer: GpuBuffer, size: int) -> None:
        """Copy the first bytes of a buffer to the GPU, in the stream's turn."""
        self._driver("cuMemcpyHtoDAsync_v2", buffer.address, buffer.host.ctypes.data, size, self.handle)

    def download(self, buffer: GpuBuffer, size: int) -> None:
        """Copy the first bytes of a buffer from the GPU, in the stream's turn."""
        self._driver("cuMemcpyDtoHAsync_v2", buffer.host.ctypes.data, buffer.address, size, self.handle)

    def wait(self) -> None:
        """Wait until all work is done; reports what failed in it."""
        self._driver("cuStreamSynchronize", self.handle)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record work as a CUDA graph, without doing it.

        Args:
            work: Gives the stream work, and waits for none.

        Returns:
            Gives the stream the recorded work.  It holds the work, and so what that uses: a recording has the addresses
            of the memory that e.g. an execution context has taken for itself.

        Raises:
            GpuError: The work cannot be recorded.
        """
        graph, ready = c_void_p(), c_void_p()
        with self._capturing(graph):
            work()
        try:
            self._driver("cuGraphInstantiateWithFlags", byref(ready), graph, 0)
        finally:
            self._driver.try_to("cuGraphDestroy", graph)
        self._release.callback(self._driver.try_to, "cuGraphExecDestroy", ready)
        return partial(self._launch, ready, work)

    def _launch(self, ready: c_void_p, _held: Callable[[], None]) -> None:
        self._driver("cuGraphLaunch", ready, self.handle)

    @contextmanager
    def _capturing(self, graph: c_void_p) -> Iterator[None]:
        self._driver("cuStreamBeginCapture_v2", self.handle, _CAPTURE_THREAD_LOCAL)
        try:
            yield
        except BaseException:
            self._driver.try_to("cuStreamEndCapture", self.handle, byref(graph))
            if graph.value:
                self._driver.try_to("cuGraphDestroy", graph)
            raise
        self._driver("cuStreamEndCapture", self.handle, byref(graph))

    def close(self) -> None:
        """Wait for the work, then free everything.  Views of the buffers must not be used any more."""
        self._driver.try_to("cuCtxSetCurrent", self._context)
        if hasattr(self, "handle"):
            self._driver.try_to("cuStreamSynchronize", self.handle)
        self._release.close()
