"""The contenders, each called through the interface that its users call.

Everything foreign is imported inside the function that needs it: a worker holds one contender, and no other library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from inputs import INPUT_SIZE, MEAN, STD, Batch, Boxes, Features

from reid_edge.bundle import open_bundle
from reid_edge.types import Image

if TYPE_CHECKING:
    import torch

Kind = Literal[
    "torchreid",
    "boxmot",
    "torch-eager",
    "torch-compile",
    "onnxruntime",
    "openvino",
    "openvino-raw",
    "ncnn",
    "mnn",
    "litert",
    "reid-edge",
]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One who takes part.

    Attributes:
        name: Unique.
        kind: Which loader.
        path: Its model: a ``.pth``/``.pt``, ONNX or IR file, or for ``reid-edge`` a bundle.
        engine: Of a bundle.
        precision: Of its model file.
        floats: What a model file of ours computes floats in.
        what: For readers: whose code, called how.
    """

    name: str
    kind: Kind
    path: str
    engine: str = ""
    precision: str = "fp32"
    floats: str = "f32"
    what: str


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A contender that is ready.

    Attributes:
        whole: Frame and boxes → features, N×512; None where there is only a network.
        network: A ready batch → features.
        takes: What ``network`` is given: float32 RGB normalised, N×3×H×W or with channels last N×H×W×3, or uint8
            N×H×W×3 BGR.
    """

    whole: Callable[[Image, Boxes], Features] | None
    network: Callable[[Batch], Features]
    takes: Literal["tensor", "channels last", "pixels"]


def load(contender: Contender, threads: int) -> Loaded:
    """Import its library and load its model.

    Args:
        contender: Who.
        threads: CPU threads; the process is bound to as many CPUs already, so that libraries that cannot be told use
            as many too.
    """
    loaders: dict[Kind, Callable[[Contender, int], Loaded]] = {
        "torchreid": _torchreid,
        "boxmot": _boxmot,
        "torch-eager": _torch,
        "torch-compile": _torch,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "openvino-raw": _openvino_raw,
        "ncnn": _ncnn,
        "mnn": _mnn,
        "litert": _litert,
        "reid-edge": _reid_edge,
    }
    return loaders[contender.kind](contender, threads)


def _torchreid(contender: Contender, threads: int) -> Loaded:
    import cv2
    import torch
    from vision import import_torchvision

    import_torchvision()
    from torchreid.reid.utils import FeatureExtractor

    torch.set_num_threads(threads)
    extractor = FeatureExtractor("osnet_x0_25", contender.path, INPUT_SIZE, device="cpu", verbose=False)

    def whole(frame: Image, boxes: Boxes) -> Features:
        # It takes crops, and as RGB: cutting and turning them round is left to its users.
        crops = [cv2.cvtColor(frame[y1:y2, x1:x2], cv2.COLOR_BGR2RGB) for x1, y1, x2, y2 in boxes.tolist()]
        return extractor(crops).numpy()  # type: ignore[no-any-return]

    return Loaded(whole=whole, network=lambda batch: extractor(torch.from_numpy(batch)).numpy(), takes="tensor")


def _boxmot(contender: Contender, threads: int) -> Loaded:
    import torch
    from boxmot.reid.core.runtime import ReID

    torch.set_num_threads(threads)
    reid = ReID(contender.path, device="cpu")

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def network(batch: Batch) -> Features:
        return np.asarray(reid.model.to_numpy(reid.model.forward(torch.from_numpy(batch))))

    return Loaded(whole=lambda frame, boxes: reid(frame, boxes), network=network, takes="tensor")


def _torch(contender: Contender, threads: int) -> Loaded:
    import torch
    from vision import import_torchvision

    import_torchvision()
    from torchreid.reid.models import build_model
    from torchreid.reid.utils import load_pretrained_weights

    torch.set_num_threads(threads)
    model: Any = build_model("osnet_x0_25", num_classes=1, pretrained=False, use_gpu=False).eval()
    load_pretrained_weights(model, contender.path)
    if contender.kind == "torch-compile":
        model = torch.compile(model, dynamic=False)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def network(batch: Batch) -> Features:
        features: torch.Tensor = model(torch.from_numpy(batch))
        return features.numpy()  # type: ignore[no-any-return]

    return Loaded(whole=_by_hand(network), network=network, takes="tensor")


def _onnxruntime(contender: Contender, threads: int) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(contender.path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def network(batch: Batch) -> Features:
        return session.run(None, {name: batch})[0]  # type: ignore[no-any-return]

    return Loaded(whole=_by_hand(network), network=network, takes="tensor")


def _openvino(contender: Contender, threads: int) -> Loaded:
    network = _compiled_for_each_size(contender.path, threads, "f32")
    return Loaded(whole=_by_hand(network), network=network, takes="tensor")


def _openvino_raw(contender: Contender, threads: int) -> Loaded:
    """The bundle's own IR, and nothing of reid-edge's around it."""
    bundle = open_bundle(contender.path)
    artifact = bundle.artifact("openvino", contender.precision)  # type: ignore[arg-type]
    bundle.check_files()
    path = bundle.path / artifact.files[0].path
    network = _compiled_for_each_size(str(path), threads, contender.floats)
    takes: Literal["tensor", "pixels"] = "pixels" if bundle.manifest.input.normalised_in == "graph" else "tensor"
    return Loaded(whole=None, network=network, takes=takes)


def _ncnn(contender: Contender, threads: int) -> Loaded:
    """It has no batches: one crop after another."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if net.load_param(contender.path) or net.load_model(str(Path(contender.path).with_suffix(".bin"))):
        raise RuntimeError(f"ncnn does not load {contender.path}")
    (taken,), (given,) = net.input_names(), net.output_names()

    def network(batch: Batch) -> Features:
        features = []
        for crop in batch:
            extractor = net.create_extractor()
            extractor.input(taken, ncnn.Mat(crop))
            features.append(np.array(extractor.extract(given)[1]).ravel())
        return np.stack(features)

    return Loaded(whole=_by_hand(network), network=network, takes="tensor")


def _mnn(contender: Contender, threads: int) -> Loaded:
    """Its sessions have a size: one for each number of crops."""
    import MNN

    sessions: dict[tuple[int, ...], tuple[Any, Any, Any]] = {}

    def session_for(shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
        if shape not in sessions:
            interpreter = MNN.Interpreter(contender.path)
            session = interpreter.createSession({"numThread": threads, "backend": "CPU", "precision": "high"})
            taken = interpreter.getSessionInput(session)
            interpreter.resizeTensor(taken, shape)
            interpreter.resizeSession(session)
            sessions[shape] = interpreter, session, taken
        return sessions[shape]

    def tensor_of(array: Batch) -> Any:
        return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)

    def network(batch: Batch) -> Features:
        interpreter, session, taken = session_for(batch.shape)
        taken.copyFrom(tensor_of(batch))
        interpreter.runSession(session)
        given = interpreter.getSessionOutput(session)
        features = np.empty(given.getShape(), np.float32)
        host = tensor_of(features)
        given.copyToHostTensor(host)
        return np.array(host.getNumpyData())

    return Loaded(whole=_by_hand(network), network=network, takes="tensor")


def _litert(contender: Contender, threads: int) -> Loaded:
    """Its interpreters have a size: one for each number of crops."""
    from ai_edge_litert.interpreter import Interpreter

    interpreters: dict[int, Any] = {}

    def interpreter_for(shape: tuple[int, ...]) -> Any:
        if shape[0] not in interpreters:
            made = interpreters[shape[0]] = Interpreter(contender.path, num_threads=threads)
            made.resize_tensor_input(made.get_input_details()[0]["index"], shape)
            made.allocate_tensors()
        return interpreters[shape[0]]

    def network(batch: Batch) -> Features:
        interpreter = interpreter_for(batch.shape)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])  # type: ignore[no-any-return]

    return Loaded(whole=_by_hand(network, channels_last=True), network=network, takes="channels last")


def _reid_edge(contender: Contender, threads: int) -> Loaded:
    from reid_edge.runtime import Extractor

    extractor = Extractor(
        contender.path,
        engine=contender.engine,  # type: ignore[arg-type]
        precision=contender.precision,  # type: ignore[arg-type]
        threads=threads,
        cache_dir=None,
    )
    in_graph = extractor.bundle.manifest.input.normalised_in == "graph"
    return Loaded(whole=extractor, network=extractor.infer, takes="pixels" if in_graph else "tensor")


def _compiled_for_each_size(path: str, threads: int, floats: str) -> Callable[[Batch], Features]:
    """OpenVINO as its documentation advises for latency: a static shape, one request used again and again."""
    import openvino

    core = openvino.Core()
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": floats,
    }
    requests: dict[int, Any] = {}

    def network(batch: Batch) -> Features:
        request = requests.get(len(batch))
        if request is None:
            model = core.read_model(path)
            model.reshape(list(batch.shape))
            request = requests[len(batch)] = core.compile_model(model, "CPU", properties).create_infer_request()
        request.infer([batch], share_inputs=True)
        return request.get_output_tensor().data.copy()  # type: ignore[no-any-return]

    return network


def _by_hand(
    network: Callable[[Batch], Features], *, channels_last: bool = False
) -> Callable[[Image, Boxes], Features]:
    """Preparation as a person writes it around a bare engine: OpenCV's resize, NumPy's arithmetic on the batch."""
    import cv2

    scale = (1 / (255 * np.array(STD))).astype(np.float32)
    shift = (-np.array(MEAN) / np.array(STD)).astype(np.float32)

    def whole(frame: Image, boxes: Boxes) -> Features:
        size = INPUT_SIZE[::-1]
        crops = np.stack([cv2.resize(frame[y1:y2, x1:x2], size) for x1, y1, x2, y2 in boxes.tolist()])
        tensor = crops[..., ::-1].astype(np.float32) * scale + shift
        features = network(np.ascontiguousarray(tensor if channels_last else tensor.transpose(0, 3, 1, 2)))
        return features / np.linalg.norm(features, axis=1, keepdims=True)  # type: ignore[no-any-return]

    return whole
