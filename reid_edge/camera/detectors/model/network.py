"""A detector's file, loaded by one engine or the other."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from reid_edge.errors import DetectorError

EngineChoice = Literal["auto", "openvino", "onnxruntime"]
Outputs = list[npt.NDArray[np.float32]]


class Network(Protocol):
    """One detector's file, loaded.

    Attributes:
        description: Library and version.
        input_shape: Four sizes of its only picture input; None where the file leaves one open.
        input_dtype: What it takes: uint8, float16 or float32.
    """

    description: str
    input_shape: tuple[int | None, ...]
    input_dtype: np.dtype[Any]

    def run(self, batch: npt.NDArray[Any]) -> Outputs:
        """All outputs for a batch of one, float32."""
        ...


def load_network(path: Path, engine: EngineChoice, threads: int | None, device: str) -> Network:
    """Load a detector's file.

    Args:
        path: ``….onnx`` or ``….xml``.
        engine: ``auto`` takes OpenVINO for an IR, else ONNX Runtime if it is installed, else OpenVINO.
        threads: CPU threads; None leaves the choice to the engine.
        device: OpenVINO's name of the device.

    Raises:
        DetectorError: No such file, or no model that the engine reads.
        MissingExtraError: The engine's package is not installed.
    """
    _check_files(path)
    if engine == "auto":
        has_onnxruntime = importlib.util.find_spec("onnxruntime") is not None
        engine = "onnxruntime" if path.suffix == ".onnx" and has_onnxruntime else "openvino"
    if engine == "onnxruntime":
        if path.suffix != ".onnx":
            raise DetectorError(f'ONNX Runtime reads .onnx files, not {path.name}. Set engine = "openvino".')
        from reid_edge.camera.detectors.model.onnxruntime import OnnxRuntimeNetwork

        return OnnxRuntimeNetwork(path, threads)
    from reid_edge.camera.detectors.model.openvino import OpenVINONetwork

    return OpenVINONetwork(path, threads, device)


def _check_files(path: Path) -> None:
    if path.suffix not in (".onnx", ".xml"):
        raise DetectorError(f"detector '{path}': expected a file ….onnx or ….xml (OpenVINO IR with its ….bin beside).")
    for file in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        if not file.is_file():
            raise DetectorError(f"detector file {file} does not exist. Copy it there, or correct the path.")


def check_input(
    inputs: list[tuple[str, tuple[int | None, ...], type[Any] | None]], path: Path
) -> tuple[tuple[int | None, ...], np.dtype[Any]]:
    """Shape and dtype of the one input that a picture goes into.

    Args:
        inputs: Name, shape and dtype of each; None for a dtype that no picture has.
        path: For the message.

    Raises:
        DetectorError: Another input too, or not of four dimensions, or of a dtype that no picture has.
    """
    if len(inputs) == 1 and len(inputs[0][1]) == 4 and inputs[0][2] is not None:
        return inputs[0][1], np.dtype(inputs[0][2])
    listed = ", ".join(f"{name} {shape} {dtype and dtype.__name__}" for name, shape, dtype in inputs) or "nothing"
    raise DetectorError(
        f"{path} takes {listed}; expected one input of four dimensions, uint8, float16 or float32: a picture."
    )
