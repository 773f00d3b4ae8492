"""Settings of a detector from a file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from reid_edge.types import PerChannel

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Threads = Annotated[int, msgspec.Meta(ge=1, le=512)]
Output = Literal["ssd", "boxes", "yolo", "fastestdet"]


class ModelSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="model"
):
    """A detector by name, or from a file, ONNX or OpenVINO IR.

    For a value of None the catalogue decides, or the file, or the convention of the kind of ``output``
    (docs/detectors.md).

    Attributes:
        path: Name of a detector in the catalogue, ``….onnx``, or ``….xml`` with its ``….bin`` beside it.
        sha256: sha256 of the file, or of ``….xml`` and ``….bin`` one after the other; another file is refused. None
            takes any.
        output: Kind of the output: ``ssd`` (DetectionOutput), ``boxes`` (boxes and labels), ``yolo`` or ``fastestdet``;
            ``auto`` recognises it, or refuses the file.
        form: Which YOLO: ``v5`` (with objectness), ``v8`` (without), ``end2end`` (after NMS); ``auto`` decides by
            the output's shape.
        person: Index of the class person.
        min_score: Lowest score of a box that goes to the filter.
        engine: ``openvino`` or ``onnxruntime``; ``auto`` takes OpenVINO for IR and for its own devices, else ONNX
            Runtime where installed.
        threads: CPU threads; None leaves the choice to the engine.
        device: CPU; OpenVINO's GPU, GPU.1, NPU or AUTO; or ONNX Runtime's CUDA, TENSORRT, OPENVINO, DML.
        size: Height and width of the input, pixels.
        layout: Order of the input's axes, ``NCHW`` or ``NHWC``.
        color: Channel order of the input.
        resize: ``stretch``, or ``letterbox``: aspect ratio kept, bars at both sides.
        mean: Subtracted from pixels 0–255, in the input's channel order.
        scale: Factor for the difference.
        pad: Value of the bars, 0–255.
    """

    path: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    output: Literal["auto", Output] = "auto"
    form: Literal["auto", "v5", "v8", "end2end"] = "auto"
    person: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_score: Fraction = 0.1
    engine: Literal["auto", "openvino", "onnxruntime"] = "auto"
    threads: Threads | None = None
    device: str = "CPU"
    size: tuple[Count, Count] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    color: Literal["BGR", "RGB"] | None = None
    resize: Literal["stretch", "letterbox"] | None = None
    mean: PerChannel = (0.0, 0.0, 0.0)
    scale: float | None = None
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
