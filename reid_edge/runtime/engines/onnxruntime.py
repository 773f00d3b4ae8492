"""ONNX Runtime on the CPU: sessions, and the engine that makes features with one; any batch, no compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.errors import EngineError, MissingExtraError
from reid_edge.manifest import Artifact
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.system.threads import thread_limit
from reid_edge.types import Features

#: Severity from which ONNX Runtime logs: errors.
_LOG_ERRORS = 3


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime, e.g. ``1.23.0``; it must be installed."""
    import onnxruntime

    version: str = onnxruntime.__version__
    return version


def open_session(model: Path | bytes, purpose: str, *, threads: int | None = None, spinning: bool = True) -> Any:
    """Load an ONNX model as an ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        model: A file, or the serialised model.
        purpose: What needs it, for the errors, e.g. ``the detector``.
        threads: CPU threads; None: ONNX Runtime's choice, or as many as this process may use where that is less
            (:func:`~reid_edge.system.threads.thread_limit`).
        spinning: Whether threads spin while they wait for work: faster, but they keep their cores from other work.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        EngineError: It cannot read the model.
    """
    try:
        import onnxruntime as library
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", purpose) from error
    options = library.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if (threads := threads or thread_limit()) is not None:
        options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else str(model)
    try:
        return library.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        name = "the model" if isinstance(model, bytes) else model
        raise EngineError(f"{name} is no model that ONNX Runtime {library.__version__} reads: {error}") from error


class OnnxRuntimeEngine:
    """Runs an ONNX file."""

    batch_sizes: tuple[int, ...] | None = None

    def __init__(self, path: Path, artifact: Artifact, options: EngineOptions) -> None:
        threads = options.threads or (artifact.execution.threads if artifact.execution else None)
        self._session = open_session(path, "the ONNX Runtime engine", threads=threads)
        self._input = self._session.get_inputs()[0].name
        self.description = f"onnxruntime {onnxruntime_version()} CPU"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], dtype=np.float32)
