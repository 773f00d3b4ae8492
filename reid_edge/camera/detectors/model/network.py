"""A detector's file, loaded by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from reid_edge.errors import DetectorError, EngineError
from reid_edge.files import read_regular
from reid_edge.manifest import MAX_FILE_BYTES
from reid_edge.runtime.engines.onnxruntime import onnxruntime_version, open_session
from reid_edge.runtime.engines.onnxruntime_tensorrt import TensorRTSession, is_tensorrt
from reid_edge.runtime.engines.openvino import compile_network, is_openvinos, openvino_version, read_network, read_onnx
from reid_edge.runtime.extractor import default_cache_dir
from reid_edge.types import Size, device_name

EngineChoice = Literal["auto", "openvino", "onnxruntime"]
Outputs = list[npt.NDArray[np.float32]]

MODEL_SUFFIXES = (".onnx", ".xml")
_PURPOSE = "the detector"
#: Types that a picture may have, by ONNX Runtime's and by OpenVINO's names.
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "f32": np.float32,
    "f16": np.float16,
    "u8": np.uint8,
}


@dataclass(frozen=True)
class ModelFile:
    """A detector's file, read once: what becomes of it while the detector runs has no effect.

    Attributes:
        path: ``….onnx`` or ``….xml``.
        model: Its content.
        weights: Content of the ``….bin`` beside ``….xml``; else nothing.
        pinned: The contents are those that the settings name by their hash.
    """

    path: Path
    model: bytes
    weights: bytes
    pinned: bool

    @property
    def names_other_files(self) -> bool:
        """Return True for an ONNX file with weights in other files: ``location`` is a key that it has for them only."""
        return self.path.suffix == ".onnx" and b"\x0a\x08location" in self.model


@dataclass(frozen=True)
class SelfDescription:
    """What a detector's file says of itself, besides shapes.

    Attributes:
        task: Ultralytics' word for what the network does, e.g. ``detect``, ``segment``, ``pose``; "" if not said.
        classes: Names of its classes, by index; none if not said.
        size: Height and width of the pictures that it was made for, pixels; None if not said.
        detection_output: Number of classes of its layer DetectionOutput, the background included, and the index of the
            background; None if there is no such layer, or the engine does not tell.
    """

    task: str = ""
    classes: tuple[str, ...] = ()
    size: Size | None = None
    detection_output: tuple[int, int] | None = None


class Network(Protocol):
    """One detector's file, loaded.

    Attributes:
        description: Library and version.
        file: The file as it was read.
        output_names: Names of its outputs, in the order of :meth:`run`.
        says: What the file says of itself.
        input_shape: Four sizes of its only picture input; None where the file leaves one open.
        input_dtype: Type of that input: uint8, float16 or float32.
    """

    description: str
    file: ModelFile
    output_names: tuple[str, ...]
    says: SelfDescription
    input_shape: tuple[int | None, ...]
    input_dtype: np.dtype[Any]

    def run(self, batch: npt.NDArray[Any]) -> Outputs:
        """Compute all outputs for a batch of one, float32.

        Raises:
            DetectorError: The engine refuses the batch.
        """
        ...


def load_network(
    path: Path, engine: EngineChoice, threads: int | None, device: str, sha256: str | None = None
) -> Network:
    """Load a detector's file.

    Args:
        path: ``….onnx`` or ``….xml``.
        engine: ``auto`` takes OpenVINO for an IR and for its own devices, else ONNX Runtime if it is installed, else
            OpenVINO.
        threads: CPU threads; None leaves the choice to the engine.
        device: ``CPU``, a device of OpenVINO or a provider of ONNX Runtime.
        sha256: Of the file, or of ``….xml`` and ``….bin`` one after the other; None takes any file.

    Raises:
        DetectorError: No such file, no model that the engine reads, or another than ``sha256`` says.
        MissingExtraError: The engine's package is not installed.
    """
    _check_files(path)
    device = device_name(device)
    if engine == "auto":
        has_onnxruntime = importlib.util.find_spec("onnxruntime") is not None
        for_onnxruntime = path.suffix == ".onnx" and not is_openvinos(device)
        engine = "onnxruntime" if for_onnxruntime and has_onnxruntime else "openvino"
    if engine == "onnxruntime" and path.suffix != ".onnx":
        raise DetectorError(f'ONNX Runtime reads .onnx files, not {path.name}. Set engine = "openvino".')
    file = _read(path, sha256)
    try:
        if engine == "onnxruntime":
            return OnnxRuntimeNetwork(file, threads, device)
        return OpenVINONetwork(file, threads, device)
    except EngineError as error:
        raise DetectorError(f"detector {path}: {error}") from error


class OnnxRuntimeNetwork:
    """Runs an ONNX file with ONNX Runtime, on the CPU or by another of its providers.

    Args:
        file: The file; weights that it names in other files are read from its folder.
        threads: CPU threads; None leaves the choice to the engine.
        device: ``CPU``, or a provider (:func:`~reid_edge.runtime.engines.onnxruntime.providers_for`).

    Raises:
        DetectorError: The file takes something else than one picture.
        EngineError: ONNX Runtime cannot read the file, or has no such provider here.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, file: ModelFile, threads: int | None, device: str) -> None:
        # Threads that spin between frames take the cores from what runs there: decoding and embedding.
        opening = partial(
            open_session,
            file.model,
            _PURPOSE,
            name=str(file.path),
            external=None if file.pinned else file.path.parent,
            threads=threads,
            spinning=False,
            device=device,
        )
        self._tensorrt: TensorRTSession | None = None
        if is_tensorrt(device):
            self._tensorrt = TensorRTSession(
                lambda tensorrt: opening(tensorrt=tensorrt),
                device=device,
                cache_dir=default_cache_dir(),
                options={},
                contents=() if file.names_other_files else (file.model,),
            )
        self._session = self._tensorrt.session if self._tensorrt else opening()
        inputs = self._session.get_inputs()
        self.input_shape, self.input_dtype = _picture_input(
            [(entry.name, _fixed_sizes(entry.shape), _DTYPES.get(entry.type)) for entry in inputs], file.path
        )
        self.file = file
        self._input = inputs[0].name
        self.output_names = tuple(entry.name for entry in self._session.get_outputs())
        said = self._session.get_modelmeta().custom_metadata_map
        self.says = SelfDescription(
            task=said.get("task", ""),
            classes=_class_names(said.get("names", "")),
            size=_picture_size(said.get("imgsz", "")),
        )
        self.description = f"onnxruntime {onnxruntime_version()} {device}"

    def run(self, batch: npt.NDArray[Any]) -> Outputs:
        """See :class:`Network`."""
        try:
            outputs = self._session.run(None, {self._input: batch})
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise _failure(batch, error) from error
        if self._tensorrt is not None:
            self._tensorrt.keep(batch.shape)
        return [np.asarray(output, np.float32) for output in outputs]


class OpenVINONetwork:
    """Runs an OpenVINO IR or an ONNX file with OpenVINO.

    Args:
        file: The file.
        threads: CPU threads; None leaves the choice to the engine.
        device: OpenVINO's name of the device.

    Raises:
        DetectorError: The file takes something else than one picture.
        EngineError: OpenVINO cannot read the file, or the device cannot run it.
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(self, file: ModelFile, threads: int | None, device: str) -> None:
        if file.path.suffix == ".onnx" and not file.pinned:
            model = read_onnx(file.path, _PURPOSE)  # its content alone loses inputs that nothing uses
        else:
            model = read_network(file.model, file.weights, _PURPOSE, name=str(file.path))
        self.input_shape, self.input_dtype = _picture_input([_described(port) for port in model.inputs], file.path)
        self.file = file
        self.output_names = tuple(next(iter(sorted(port.names)), "") for port in model.outputs)
        self.says = _described_by_openvino(model)
        self._request = compile_network(model, device, _PURPOSE, threads=threads).create_infer_request()
        self.description = f"openvino {openvino_version()} {device}"

    def run(self, batch: npt.NDArray[Any]) -> Outputs:
        """See :class:`Network`."""
        try:
            self._request.infer([batch], share_inputs=True)
        except RuntimeError as error:
            raise _failure(batch, error) from error
        return [np.array(tensor.data, np.float32) for tensor in self._request.output_tensors]


def _check_files(path: Path) -> None:
    if path.suffix not in MODEL_SUFFIXES:
        hint = (
            "Export it to ONNX where its library is installed, e.g. yolo export model=FILE.pt format=onnx."
            if path.suffix in (".pt", ".pth", ".pb", ".tflite", ".engine")
            else "'reid-edge detector list' shows the detectors that have a name."
        )
        raise DetectorError(
            f"detector '{path}': expected a file ….onnx or ….xml (OpenVINO IR with its ….bin beside). {hint}"
        )
    for file in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        if not file.is_file():
            raise DetectorError(f"detector file {file} does not exist. Copy it there, or correct the path.")


def _read(path: Path, sha256: str | None) -> ModelFile:
    """Read a detector's file, and the weights of an IR.

    Raises:
        DetectorError: It cannot be read, or is another than ``sha256`` says.
    """
    weights = _content(path.with_suffix(".bin")) if path.suffix == ".xml" else b""
    file = ModelFile(path, _content(path), weights, pinned=sha256 is not None)
    found = hashlib.sha256(file.model + file.weights).hexdigest()
    if sha256 is not None and found != sha256:
        raise DetectorError(f"{path} is not the file that the settings name: sha256 {found}, detector.sha256 {sha256}.")
    if file.pinned and file.names_other_files:
        raise DetectorError(
            f"{path} has weights in other files, which detector.sha256 does not cover: save it as one file "
            "(onnx.save without external data)."
        )
    return file


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, max_bytes=MAX_FILE_BYTES)
    except OSError as error:
        raise DetectorError(f"detector file {path} cannot be read: {error.strerror}.") from error


def _picture_input(
    inputs: list[tuple[str, tuple[int | None, ...], type[Any] | None]], path: Path
) -> tuple[tuple[int | None, ...], np.dtype[Any]]:
    """Return shape and dtype of the one input that a picture goes into.

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


def _fixed_sizes(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _described(port: Any) -> tuple[str, tuple[int | None, ...], type[Any] | None]:
    sizes = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return port.any_name, sizes, _DTYPES.get(port.element_type.get_type_name())


def _class_names(text: str) -> tuple[str, ...]:
    """Read Ultralytics' names of classes, ``{0: 'person', 1: 'bicycle', …}``; none if they are something else."""
    names = _literal(text)
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(range(len(names)), key=str):
        return ()
    return tuple(str(names[index]) for index in range(len(names)))


def _picture_size(text: str) -> Size | None:
    """Read Ultralytics' ``imgsz``, ``[height, width]``; None if it is something else."""
    size = _literal(text)
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        return None
    return size[0], size[1]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _described_by_openvino(model: Any) -> SelfDescription:
    """Read what an OpenVINO model, perhaps made from ONNX, says of itself."""
    labels = _rt_info(model, "model_info", "labels").split()
    return SelfDescription(
        task=_rt_info(model, "framework", "task"),
        classes=_class_names(_rt_info(model, "framework", "names")) or tuple(labels),
        size=_picture_size(_rt_info(model, "framework", "imgsz")),
        detection_output=next(map(_classes_of, filter(_is_detection_output, model.get_ops())), None),
    )


def _rt_info(model: Any, *path: str) -> str:
    return str(model.get_rt_info(list(path)).value) if model.has_rt_info(list(path)) else ""


def _is_detection_output(operation: Any) -> bool:
    return bool(operation.get_type_name() == "DetectionOutput" and operation.get_input_size() >= 3)


def _classes_of(operation: Any) -> tuple[int, int] | None:
    """Return the number of classes of a DetectionOutput, from the sizes of its inputs, and its background."""
    scores, priors = (operation.input(index).get_partial_shape() for index in (1, 2))
    if scores.is_dynamic or priors.is_dynamic:
        return None
    count = scores[len(scores) - 1].get_length() * 4 // priors[len(priors) - 1].get_length()
    return count, int(operation.get_attributes().get("background_label_id", 0))


def _failure(batch: npt.NDArray[Any], error: Exception) -> DetectorError:
    return DetectorError(f"the detector failed on an input of shape {batch.shape}: {error}")
