"""Recognition of a detector's kind from its file and from what it gives on a black picture.

What is ambiguous is refused, with what was seen and what to write: a detector that is misread sees nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np

from reid_edge.camera.detectors.catalogue import CatalogueDetector
from reid_edge.camera.detectors.model import heads
from reid_edge.camera.detectors.model.network import Network, Outputs, SelfDescription
from reid_edge.camera.detectors.model.settings import ModelSettings, Output
from reid_edge.camera.detectors.model.suppressed import SuppressedHead, check_suppressed
from reid_edge.camera.detectors.model.yolo_layout import YoloLayout, yolo_layout
from reid_edge.camera.frames import Detections
from reid_edge.errors import DetectorError
from reid_edge.types import Size
from reid_edge.wording import counted

#: Names of people in lists of classes.
_PEOPLE = ("person", "pedestrian", "people", "human")
#: Classes of COCO, of which the first is a person, where the background is none of them.
_COCO = 80
#: Class of people in a DetectionOutput of which nothing is known.
_SSD_PERSON = 1
#: How a user says the class of people.
_PERSON = "--set detector.person=N (in a settings file: person in [detector])"
#: How pictures are prepared for files whose outputs do not tell.
_OF_YOLOX = (
    "YOLOX from 0.1.1 on: --set detector.color=BGR --set detector.scale=1.0. YOLOv6: --set detector.color=RGB --set "
    "detector.scale=0.003922. A YOLO without objectness: --set detector.form=v8."
)
_OF_MMDEPLOY = (
    "RTMDet: --set detector.color=BGR --set 'detector.mean=[103.53, 116.28, 123.675]' --set detector.scale=0.01735 "
    "--set detector.resize=letterbox. Others: mean, 1/std and bgr_to_rgb of data_preprocessor in their configuration."
)
#: How far the probabilities of a cell may be from 1 together.
_ROUNDING = 0.05


@dataclass(frozen=True)
class Recognised:
    """How the outputs of a detector are read.

    Attributes:
        output: Kind of output.
        label: The same for a person to read.
        head: Reads the outputs.
    """

    output: Output
    label: str
    head: Callable[[Outputs], Detections]


def recognise(
    settings: ModelSettings, network: Network, outputs: Outputs, size: Size, known: CatalogueDetector | None
) -> Recognised:
    """Decide how a detector's outputs are read: by the settings, the catalogue, or the file itself.

    Args:
        settings: What its owner says of it.
        network: The detector.
        outputs: What it gives on a black picture.
        size: Height and width of its input.
        known: Its entry in the catalogue, if it has one.

    Raises:
        DetectorError: The settings do not fit, or nothing says how to read it.
    """
    kind = settings.output
    if kind == "auto":
        kind = known.output if known else _kind_of(network, outputs)
    if known and settings.person is None:
        settings = msgspec.structs.replace(settings, person=known.person)
    everybody = known is not None and settings.person is None
    says, min_score = network.says, settings.min_score
    match kind:
        case "yolo":
            return _yolo(settings, network, outputs, size)
        case "fastestdet":
            count = outputs[0].shape[1] - 5 if outputs[0].ndim == 4 else 0
            head = partial(heads.fastestdet, size=size, person=_person_of(settings, says, count), min_score=min_score)
        case "boxes":
            rows = _boxes_and_labels(network, outputs)
            if outputs[rows[0]].ndim == 3:
                _check_input_is_said(settings, "boxes 1×N×5 with labels 1×N, as MMDeploy's", _OF_MMDEPLOY)
            person = None if everybody else _person_of(settings, says, None)
            head = partial(heads.boxes, rows=rows, person=person, min_score=min_score)
        case "ssd":
            head = partial(heads.ssd, size=size, person=_ssd_person(settings, says), min_score=min_score)
    return Recognised(kind, kind, head)


def _kind_of(network: Network, outputs: Outputs) -> Output:
    """Recognise the kind of output by shapes and values."""
    if _find_boxes(network, outputs) is not None:
        return "boxes"
    if [output.shape[:2] for output in outputs if output.ndim == 4 and output.shape[3] == 7] == [(1, 1)]:
        return "ssd"
    if any(output.ndim == 3 for output in outputs):
        return "yolo"
    if len(outputs) == 1 and _is_fastestdet(outputs[0]):
        return "fastestdet"
    raise DetectorError(
        f"{network.file.path} is not recognised as a detector: it gives {_listed(network, outputs)}. Set 'output' "
        "(--set detector.output=KIND; docs/detectors.md lists the kinds), export it with its decoder included, or use "
        'kind = "callable".'
    )


def _is_fastestdet(output: heads.Array) -> bool:
    if output.ndim != 4 or output.shape[0] != 1 or output.shape[1] < 6:
        return False
    objectness, sums = output[0, 0], output[0, 5:].sum(0)
    return bool((objectness >= 0).all() and (objectness <= 1).all() and (np.abs(sums - 1) <= _ROUNDING).all())


def _find_boxes(network: Network, outputs: Outputs) -> tuple[int, int] | None:
    """Return the numbers of the outputs with boxes (N×5) and their labels (N); None if there are not just these.

    Both may have an axis of one picture before: 1×N×5 and 1×N.
    """
    for one in ((), (1,)):
        boxes = [number for number, output in enumerate(outputs) if _is_table(output, (*one, None, 5))]
        labels = [number for number, output in enumerate(outputs) if _is_table(output, (*one, None))]
        if len(labels) > 1:  # others may be in the file, of which nothing is wanted
            labels = [number for number in labels if "label" in network.output_names[number]]
        if len(boxes) == len(labels) == 1 and outputs[boxes[0]].shape[-2] == outputs[labels[0]].shape[-1]:
            return boxes[0], labels[0]
    return None


def _is_table(output: heads.Array, shape: tuple[int | None, ...]) -> bool:
    return output.ndim == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(output.shape, shape, strict=True)
    )


def _boxes_and_labels(network: Network, outputs: Outputs) -> tuple[int, int]:
    found = _find_boxes(network, outputs)
    if found is None:
        raise DetectorError(
            f"expected one output N×5 (x1 y1 x2 y2 score) and one of N labels (or 1×N×5 and 1×N); {network.file.path} "
            f"gives {_listed(network, outputs)}. Is 'output' right?"
        )
    return found


def _yolo(settings: ModelSettings, network: Network, outputs: Outputs, size: Size) -> Recognised:
    path = str(network.file.path)
    layout: YoloLayout = yolo_layout(outputs, network.says, size, settings.form, path)
    checked = layout.form == "end2end" and check_suppressed(outputs[layout.number], path)
    if layout.is_anonymous:
        _check_input_is_said(settings, "a row with objectness for each cell, as YOLOX and YOLOv6 do", _OF_YOLOX)
    person = _person_of(settings, network.says, layout.classes)
    head: Callable[[Outputs], Detections] = partial(
        heads.yolo,
        number=layout.number,
        form=layout.form,
        classes=layout.classes,
        person=person,
        min_score=settings.min_score,
    )
    if layout.form == "end2end":
        head = SuppressedHead(head, layout.number, path, checked=checked)
    return Recognised("yolo", f"yolo {layout.form}{f', its {layout.extra}' if layout.extra else ''}", head)


def _check_input_is_said(settings: ModelSettings, what: str, examples: str) -> None:
    """Check that the settings say how pictures are prepared, where outputs are alike and inputs are not.

    Args:
        settings: They need colour order and scale.
        what: What the file gives.
        examples: What to write for files that are known to give it.

    Raises:
        DetectorError: They do not. A detector that gets other pixels than it was trained on sees nobody.
    """
    if settings.color is None or settings.scale is None:
        raise DetectorError(
            f"{settings.path} gives {what}, and nothing says how its pictures are prepared. Give detector.color and "
            f"detector.scale as in its training. {examples}"
        )


def _person_of(settings: ModelSettings, says: SelfDescription, count: int | None) -> int:
    """Return the index of people.

    Args:
        settings: They may say it.
        says: The file may name its classes.
        count: Number of classes; None if the shapes do not tell.
    """
    if settings.person is not None:
        return settings.person
    if says.classes:
        return _named_person(settings, says.classes)
    if settings.output != "auto" or count in (1, _COCO):
        return 0
    raise DetectorError(
        f"{settings.path} has {count or 'an unknown number of'} classes and does not name them: give {_PERSON}, "
        "the index of the class person, from 0."
    )


def _named_person(settings: ModelSettings, classes: tuple[str, ...]) -> int:
    for name in _PEOPLE:
        for index, given in enumerate(classes):
            if given.strip().lower() == name:
                return index
    if len(classes) == 1:
        return 0
    raise DetectorError(
        f"the classes of {settings.path} are {', '.join(classes)[:200]}: none of them is 'person'. If one is, give "
        f"{_PERSON}, its index, from 0."
    )


def _ssd_person(settings: ModelSettings, says: SelfDescription) -> int:
    """Return the class of people of a DetectionOutput: of two classes, the one that is not the background."""
    layer = says.detection_output
    if settings.person is not None:
        if layer is not None and settings.person == layer[1]:
            raise DetectorError(
                f"class {settings.person} of {settings.path} is the background, among {layer[0]}. Correct 'person'."
            )
        return settings.person
    if layer is not None and layer[0] == 2 and layer[1] in (0, 1):
        return 1 - layer[1]
    if says.classes:
        return _named_person(settings, says.classes)
    if settings.output != "auto":
        return _SSD_PERSON
    classes = (
        f"{counted(layer[0], 'class', 'classes')}, number {layer[1]} the background,"
        if layer
        else "an unknown number of classes"
    )
    raise DetectorError(
        f"{settings.path} is an SSD with {classes} and does not name them: give {_PERSON}, "
        "the index of the class person (often 1; 15 of Pascal VOC's 21)."
    )


def _listed(network: Network, outputs: Outputs) -> str:
    """Return names and shapes of the outputs."""
    return ", ".join(
        f"{name} {'×'.join(map(str, output.shape))}" for name, output in zip(network.output_names, outputs, strict=True)
    )
