"""Detectors on ONNX Runtime, CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.camera.detectors.model.network import Outputs, check_input
from reid_edge.errors import DetectorError, MissingExtraError

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class OnnxRuntimeNetwork:
    """Runs an ONNX file.

    Args:
        path: The file.
        threads: CPU threads; None leaves the choice to the engine.
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", "the detector") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that spin between frames take the cores from what runs there: decoding and embedding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base of their own
            raise DetectorError(
                f"{path} is no model that ONNX Runtime {onnxruntime.__version__} reads: {error}"
            ) from error
        inputs = self._session.get_inputs()
        self.input_shape, self.input_dtype = check_input(
            [(entry.name, _sizes(entry.shape), _DTYPES.get(entry.type)) for entry in inputs], path
        )
        self._input = inputs[0].name
        self.description = f"onnxruntime {onnxruntime.__version__} CPU"

    def run(self, batch: npt.NDArray[Any]) -> Outputs:
        """See :class:`~reid_edge.camera.detectors.model.network.Network`."""
        try:
            outputs = self._session.run(None, {self._input: batch})
        except Exception as error:  # as above
            raise DetectorError(f"the detector failed on an input of shape {batch.shape}: {error}") from error
        return [np.asarray(output, np.float32) for output in outputs]


def _sizes(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)
