"""Finding a TensorRT library and a GPU: shared by the engine that runs plans and the builder that makes them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from reid_edge.errors import EngineError, EngineUnavailableError

#: In order of preference: the full library, then the one for RTX cards, which installs from PyPI.
LIBRARIES = ("tensorrt", "tensorrt_rtx")

INSTALL_HINT = (
    "On a Jetson, TensorRT comes with JetPack: make the environment with "
    "'python3 -m venv --system-site-packages'. Elsewhere: pip install 'reid-edge[tensorrt]', "
    "or 'reid-edge[tensorrt-rtx]' for GeForce and RTX cards."
)


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
        EngineUnavailableError: Not installed.
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
    """A logger that lets only errors through."""
    return library.Logger(library.Logger.ERROR)


def find_gpu() -> Gpu | None:
    """The GPU at hand, or None without one (or without its driver)."""
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
    """The CUDA runtime's Python binding, under either of its two names.

    Raises:
        EngineUnavailableError: Not installed.
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
