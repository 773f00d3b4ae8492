"""OpenVINO's core, one for the process: shared by the engine, detectors and what measures."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from reid_edge.errors import MissingExtraError

_making = threading.Lock()


def openvino_core(purpose: str) -> Any:
    """The ``openvino.Core`` of this process; it may be used from several threads, and lives as long as the process.

    Each core's CPU plugin gives the thread that loads it a stack for signal handlers, and frees that stack with
    itself; of two cores the one freed last restores the other's stack, which is gone.  The next signal that Python
    handles, a SIGTERM say, then kills the process without a word (seen with OpenVINO 2026.4.1: ``SigAltStackSetup``
    of its CPU plugin).  So there is never a second core.  What differs between models goes to ``compile_model``,
    never into the core's properties.

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
    """As in ``2026.4.1``."""
    import openvino

    version: str = openvino.get_version()
    return version.partition("-")[0]


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()
