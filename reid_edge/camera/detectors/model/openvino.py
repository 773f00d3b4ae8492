"""Detectors on OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.camera.detectors.model.network import Outputs, check_input
from reid_edge.errors import DetectorError
from reid_edge.runtime.engines.ovlib import openvino_core, openvino_version

_DTYPES = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}


class OpenVINONetwork:
    """Runs an OpenVINO IR or an ONNX file.

    Args:
        path: The file.
        threads: CPU threads; None leaves the choice to the engine.
        device: OpenVINO's name of the device.
    """

    def __init__(self, path: Path, threads: int | None, device: str) -> None:
        core = openvino_core("the detector")
        properties = {"PERFORMANCE_HINT": "LATENCY"} | ({} if threads is None else {"INFERENCE_NUM_THREADS": threads})
        try:
            model = core.read_model(path)
            self.input_shape, self.input_dtype = check_input([_describe(port) for port in model.inputs], path)
            self._request = core.compile_model(model, device, properties).create_infer_request()
        except RuntimeError as error:
            raise DetectorError(f"OpenVINO cannot load {path} on {device}: {str(error).strip()[:500]}") from error
        self.description = f"openvino {openvino_version()} {device}"

    def run(self, batch: npt.NDArray[Any]) -> Outputs:
        """See :class:`~reid_edge.camera.detectors.model.network.Network`."""
        try:
            self._request.infer([batch], share_inputs=True)
        except RuntimeError as error:
            raise DetectorError(f"the detector failed on an input of shape {batch.shape}: {error}") from error
        return [np.array(tensor.data, np.float32) for tensor in self._request.output_tensors]


def _describe(port: Any) -> tuple[str, tuple[int | None, ...], type[Any] | None]:
    sizes = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return port.any_name, sizes, _DTYPES.get(port.element_type.get_type_name())
