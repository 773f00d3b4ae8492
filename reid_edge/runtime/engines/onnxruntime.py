"""ONNX Runtime on the CPU: any batch, no compilation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reid_edge.bundle import Artifact
from reid_edge.errors import MissingExtraError
from reid_edge.runtime.engines.base import Batch, EngineOptions, Features


class OnnxRuntimeEngine:
    """Runs an ONNX file."""

    batch_sizes: tuple[int, ...] | None = None

    def __init__(self, path: Path, artifact: Artifact, options: EngineOptions) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", "the ONNX Runtime engine") from error
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        threads = options.threads or (artifact.execution.threads if artifact.execution else None)
        if threads is not None:
            session_options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.description = f"onnxruntime {onnxruntime.__version__} CPU"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], dtype=np.float32)
