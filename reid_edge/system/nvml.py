"""Energy counters of NVIDIA's GPUs, by the library that the driver brings (NVML); no package is needed.

The functions are those of NVIDIA's "NVML API Reference Guide".  Jetsons have power monitors instead.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import Any

#: Name under which the library is loaded.
LIBRARY = "libnvidia-ml.so.1"
#: Every function that is called, with the types of its arguments; each returns a status, of which 0 is success.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "nvmlInit_v2": (),
    "nvmlDeviceGetCount_v2": (POINTER(c_uint),),
    "nvmlDeviceGetHandleByIndex_v2": (c_uint, POINTER(c_void_p)),
    "nvmlDeviceGetName": (c_void_p, c_char_p, c_uint),
    "nvmlDeviceGetTotalEnergyConsumption": (c_void_p, POINTER(c_ulonglong)),
}
_LONGEST_NAME = 96


@dataclass(frozen=True)
class GpuCounter:
    """Energy counter of one GPU, which has counted since the driver was loaded (from Volta on).

    Attributes:
        name: Of the GPU, e.g. ``NVIDIA T4``.
    """

    name: str
    _library: Any
    _handle: Any

    def read(self) -> int | None:
        """Return the counter's value, millijoules; None where it cannot be read."""
        value = c_ulonglong()
        status = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, byref(value))
        return None if status else value.value


def find_gpu_counters() -> list[GpuCounter]:
    """List the counters of all GPUs that can be read here; none without a driver or a GPU, or on older GPUs."""
    library = _load()
    count = c_uint()
    if library is None or library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(byref(count)):
        return []
    counters = [_counter(library, index) for index in range(count.value)]
    return [counter for counter in counters if counter is not None and counter.read() is not None]


def _load() -> Any:
    """Load the library; None without it, or where it lacks a function."""
    try:
        library = ctypes.CDLL(LIBRARY)
        for name, arguments in PROTOTYPES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
    except (OSError, AttributeError):
        return None
    return library


def _counter(library: Any, index: int) -> GpuCounter | None:
    handle, name = c_void_p(), ctypes.create_string_buffer(_LONGEST_NAME)
    if library.nvmlDeviceGetHandleByIndex_v2(index, byref(handle)):
        return None
    if library.nvmlDeviceGetName(handle, name, _LONGEST_NAME):
        return None
    return GpuCounter(name.value.decode(errors="replace"), library, handle)
