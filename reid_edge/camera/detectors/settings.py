"""What a settings file says about a detector: one section, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Threads = Annotated[int, msgspec.Meta(ge=1, le=512)]
Triple = tuple[float, float, float]


class MotionSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="motion"
):
    """People by their movement before a still background; needs no weights and a camera that does not move.

    Attributes:
        width: Frames are halved until they are nearest to this width, pixels.
        memory_s: Time after which what stands still has become background, seconds.
        sensitivity: Squared distance, in standard deviations, at which a pixel leaves the background; less finds more.
        min_height: Smallest person, fraction of the frame's height.
        max_height: Largest, likewise.
    """

    width: Annotated[int, msgspec.Meta(ge=64)] = 384
    memory_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    sensitivity: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    min_height: Fraction = 0.08
    max_height: Fraction = 0.95


class MotChallengeSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="motchallenge"
):
    """Boxes from a file: MOTChallenge ``det.txt`` or ``gt.txt``, or CSV with a header.

    Attributes:
        path: The file.
        first_frame: Number that the file gives to the first frame of the video.
        period: Frames after which a looped video begins again; None for one that does not.
        score_range: Lowest and highest score in the file, mapped to 0 and 1.
    """

    path: str
    first_frame: Annotated[int, msgspec.Meta(ge=0)] = 1
    period: Count | None = None
    score_range: tuple[float, float] = (0.0, 1.0)


class JsonLinesSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="jsonlines"
):
    """Boxes from another process, one JSON object per frame and line.

    Attributes:
        listen: ``stdin``, ``unix:/path/of/socket``, or ``tcp:127.0.0.1:port``.
        tolerance_ms: Lines with a time belong to frames at most this far; should be under half the time between frames.
        wait_ms: How long a frame waits for its line while somebody is sending.
        max_pending: Lines held for frames to come.  Of lines with frame numbers the sender then waits; of lines with
            times the oldest go.
        max_line_bytes: A longer line is skipped.
    """

    listen: str = "stdin"
    tolerance_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 20.0
    wait_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 200.0
    max_pending: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1024
    max_line_bytes: Annotated[int, msgspec.Meta(ge=256, le=1 << 24)] = 1 << 18


class CallableSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="callable"
):
    """A Python function: takes a Frame, gives N×5 x1 y1 x2 y2 score in pixels, or N×4, or Detections.

    Attributes:
        function: ``package.module:function``; the module must be importable.
    """

    function: Annotated[str, msgspec.Meta(pattern=r"^[\w.]+:[\w.]+$")]


class ModelSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="model"
):
    """A detector's file, ONNX or OpenVINO IR.

    What is None is taken from the file (``size``) or as usual for the kind of ``output`` (docs/detectors.md).

    Attributes:
        path: ``….onnx``, or ``….xml`` with its ``….bin`` beside it.
        output: What comes out: ``ssd`` (DetectionOutput), ``yolo`` or ``fastestdet``.
        form: Which YOLO: ``v5`` (with objectness), ``v8`` (without), ``end2end`` (after NMS); ``auto`` tells by shape.
        person: Index of the class person.
        min_score: Less sure boxes are left out.
        engine: ``openvino`` or ``onnxruntime``; ``auto`` takes OpenVINO for IR, else ONNX Runtime where installed.
        threads: CPU threads; None leaves the choice to the engine.
        device: OpenVINO's name of the device.
        size: Height and width of the input, pixels.
        layout: Of the input.
        color: Channel order of the input.
        resize: ``stretch``, or ``letterbox``: aspect ratio kept, bars at both sides.
        mean: Subtracted from pixels 0–255, in the input's channel order.
        scale: Then multiplied with.
        pad: Value of the bars, 0–255.
    """

    path: str
    output: Literal["ssd", "yolo", "fastestdet"]
    form: Literal["auto", "v5", "v8", "end2end"] = "auto"
    person: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_score: Fraction = 0.1
    engine: Literal["auto", "openvino", "onnxruntime"] = "auto"
    threads: Threads | None = None
    device: str = "CPU"
    size: tuple[Count, Count] | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["BGR", "RGB"] | None = None
    resize: Literal["stretch", "letterbox"] | None = None
    mean: Triple = (0.0, 0.0, 0.0)
    scale: float | None = None
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114


DetectorSettings = MotionSettings | MotChallengeSettings | JsonLinesSettings | CallableSettings | ModelSettings
