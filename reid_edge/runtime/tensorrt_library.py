"""TensorRT and TensorRT-RTX as Python modules: which is here, what it can do on which GPU, and its log."""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from reid_edge.errors import EngineError, EngineUnavailableError, GpuMemoryError, shortened
from reid_edge.manifest import Precision
from reid_edge.runtime.cuda import Gpu, remedy

#: In order of preference: the full library, then the one for RTX cards.
TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
LIBRARIES = (TENSORRT, TENSORRT_RTX)
#: The first release of TensorRT whose networks state their precision, as those of a bundle do.
OLDEST = (10, 3)
#: What TensorRT-RTX's plans run on (its support matrix): GeForce and RTX cards since Ampere, and GB10.
RTX_CAPABILITIES = ("8.6", "8.9", "12.0", "12.1")

INSTALL_HINT = (
    "On a Jetson, TensorRT comes with JetPack: make the environment with "
    "'python3 -m venv --system-site-packages'. Elsewhere: pip install 'reid-edge[tensorrt]', "
    "or 'reid-edge[tensorrt-rtx]' for GeForce and RTX cards since Ampere."
)
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|could not be allocated|memory allocation", re.IGNORECASE)
_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
}
#: Errors of the library that are kept for the message of ours.
_KEPT = 5

_logger = logging.getLogger("reid_edge.tensorrt")
Made = TypeVar("Made")


def load_library(name: str | None = None) -> ModuleType:
    """Import TensorRT.

    Args:
        name: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is here and can be used.

    Raises:
        EngineUnavailableError: None is installed, or what is installed is broken or too old; the message says which.
    """
    obstacles = []
    for candidate in (name,) if name else LIBRARIES:
        try:
            library = importlib.import_module(candidate)
            if not hasattr(library, "Builder"):  # a folder of that name
                continue
        except ImportError as error:
            if not _is_missing(error, candidate):
                obstacles.append(f"{candidate} is installed, but cannot be loaded: {error}.")
            continue
        except Exception as error:  # what a foreign module may raise while it is loaded
            obstacles.append(f"{candidate} is installed, but fails: {type(error).__name__}: {error}.")
            continue
        if (obstacle := _why_too_old(library)) == "":
            return library
        obstacles.append(obstacle)
    obstacles = obstacles or [f"no {name or 'TensorRT'} library is installed."]
    raise EngineUnavailableError(" ".join([*obstacles, INSTALL_HINT]))


def _is_missing(error: ImportError, name: str) -> bool:
    """Return True where the module itself was not found, rather than something that it needs."""
    return isinstance(error, ModuleNotFoundError) and error.name == name


def _why_too_old(library: ModuleType) -> str:
    version = str(library.__version__)
    if library.__name__ != TENSORRT or _release(version) >= OLDEST:
        return ""
    return (
        f"TensorRT {version} is too old (JetPack 6.0 has 8.6): reid-edge needs {OLDEST[0]}.{OLDEST[1]}, which states "
        "the precision of every layer in the network. Update the Jetson to JetPack 6.1 or later."
    )


def _release(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def why_not_on(library: ModuleType, gpu: Gpu | None) -> str:
    """Return the reason why a library's plans cannot run on a GPU; "" where they can, or where there is no GPU."""
    if library.__name__ != TENSORRT_RTX or gpu is None or gpu.compute_capability in RTX_CAPABILITIES:
        return ""
    return (
        f"TensorRT-RTX plans run on GeForce and RTX cards since Ampere (compute capability "
        f"{', '.join(RTX_CAPABILITIES)}), not on {gpu.name} ({gpu.compute_capability}). "
        "Use the full library: pip install 'reid-edge[tensorrt]'."
    )


def buildable_precisions(library: ModuleType) -> tuple[Precision, ...]:
    """Return the precisions that a library computes convolutions in.

    TensorRT-RTX has INT8 for the weights of matrix products only (its support matrix, "INT8 WoQ GEMM").
    """
    return ("fp32", "fp16") if library.__name__ == TENSORRT_RTX else ("fp32", "fp16", "int8")


def library_log(library: ModuleType) -> Any:
    """Return the one logger of a library in this process, an ``ILogger``: it writes to ``logging``.

    TensorRT keeps the first logger that it is given for as long as the process lives.
    """
    return _log_of(library)


def make(library: ModuleType, what: str, making: Callable[[], Made | None]) -> Made:
    """Call the library, and turn its refusals into errors.

    Args:
        library: Its log gives the reason.
        what: What is made, for the error, e.g. ``an execution context``.
        making: Returns it; None or an exception: it was refused.

    Raises:
        GpuMemoryError: No memory is left.
        EngineError: Another refusal.
    """
    log = library_log(library)
    log.take_errors()
    reason = ""
    try:
        made = making()
    except (TypeError, RuntimeError, MemoryError) as error:  # TypeError: pybind11 was handed a null pointer
        made, reason = None, str(error)
    if made is None:
        raise failure(library, what, log.take_errors() or reason)
    return made


def failure(library: ModuleType, what: str, reason: str) -> EngineError:
    """Return the error for something that the library did not do."""
    text = f"{library.__name__} {library.__version__} could not make {what}: {shortened(reason or 'no reason given')}"
    if _OUT_OF_MEMORY.search(reason):
        return GpuMemoryError(f"{text}. To mend it: {remedy(2)}.")
    return EngineError(text)


@cache
def _log_of(library: ModuleType) -> Any:
    levels = {getattr(library.ILogger.Severity, name): level for name, level in _LEVELS.items()}

    class Log(library.ILogger):  # type: ignore[misc, name-defined]
        """Passes the library's messages on, and keeps the last errors."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_KEPT)
            self._lock = threading.Lock()

        def log(self, severity: Any, msg: str) -> None:
            """Take a message; called by the library's threads, which must not see an exception."""
            level = levels.get(severity, logging.NOTSET)
            if level >= logging.ERROR:
                with self._lock:
                    self._errors.append(msg.strip())
            if level:
                _logger.log(level, "%s: %s", library.__name__, msg.strip())

        def take_errors(self) -> str:
            """Return the errors since the last call, and forget them."""
            with self._lock:
                found = "; ".join(self._errors)
                self._errors.clear()
            return found

    return Log()
