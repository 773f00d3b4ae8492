"""Recognition of detectors by inputs and outputs: small files with the heads that are exported, and real files."""

import contextlib
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from reid_edge.camera.advised_scores import AdvisedScores
from reid_edge.camera.agent import Agent
from reid_edge.camera.detectors import ModelSettings, open_detector, scores_of
from reid_edge.camera.detectors import catalogue as catalogue_module
from reid_edge.camera.detectors.catalogue import CatalogueFile, catalogue, located, user_folder
from reid_edge.camera.detectors.fetching import fetch
from reid_edge.camera.frames import Frame
from reid_edge.errors import DetectorError
from tests.camera.test_agent import settings  # noqa: F401 - a fixture
from tests.camera.test_detectors import rows

onnx = pytest.importorskip("onnx")
ENGINES = ["onnxruntime", "openvino"]
COCO = {0: "person", **{index: f"thing {index}" for index in range(1, 80)}}
#: Candidates of a YOLO with an input of 128×128: cells of 8, 16 and 32 pixels.
CELLS = 256 + 64 + 16
FRAME = Frame(np.zeros((128, 128, 3), np.uint8), 0, 0)
#: The person that every file here finds.
PERSON = [24, 12, 40, 52, pytest.approx(0.9, abs=0.01)]


@pytest.fixture
def file(tmp_path):
    """Writes an ONNX file that takes a picture and always gives the same outputs."""

    def write(*outputs: np.ndarray, takes=(1, 3, 128, 128), called=None, **says) -> str:
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        named = list(zip(called or [f"output{number}" for number in range(len(outputs))], outputs, strict=True))
        nodes = [
            helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
            helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        ]
        constants = [onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")]
        for name, output in named:
            constants.append(onnx.numpy_helper.from_array(output.astype(np.float32), f"constant_{name}"))
            nodes.append(helper.make_node("Add", [f"constant_{name}", "nothing"], [name]))
        graph = helper.make_graph(
            nodes,
            "head",
            [helper.make_tensor_value_info("images", kind, list(takes))],
            [helper.make_tensor_value_info(name, kind, list(output.shape)) for name, output in named],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {name: str(value) for name, value in says.items()})
        onnx.save(model, tmp_path / "file.onnx")
        return str(tmp_path / "file.onnx")

    return write


def grid(columns: int, *, count=CELLS, behind=None, scale=1.0) -> np.ndarray:
    """Candidates, count×columns: one person, and others without a score; behind the classes what the task adds."""
    rng = np.random.default_rng(7)
    table = np.zeros((count, columns))
    table[:, :2] = rng.uniform(0, 128, (count, 2)) * scale
    table[:, 2:4] = 8 * scale
    if behind is not None:
        start, low, high = behind
        table[:, start:] = rng.uniform(low, high, (count, columns - start))
    table[5, :4] = np.array([32, 32, 16, 40]) * scale
    return table


def v8(columns: int, **options) -> np.ndarray:
    table = grid(columns, **options)
    table[5, 4] = 0.9
    return table.T[None]


def v5(columns: int, *, count=3 * CELLS, **options) -> np.ndarray:
    table = grid(columns, count=count, **options)
    table[5, 4:6] = 0.9, 1.0
    return table[None]


def end2end(columns: int = 6, count: int = 300, *, behind=(0, 1)) -> np.ndarray:
    table = np.zeros((1, count, columns))
    table[0, :, 6:] = np.random.default_rng(7).uniform(*behind, (count, columns - 6))
    table[0, 0, :6] = 24, 12, 40, 52, 0.9, 0
    return table


def beside_one_far(table: np.ndarray) -> np.ndarray:
    table[0, 9, 0] = 30
    return table


PROTOTYPES = np.zeros((1, 32, 16, 16))
KEYPOINTS = (5, -20.0, 80.0)
HEADS = {
    "v8 of COCO": ([v8(84)], {}, "yolo v8"),
    "v8, transposed": ([np.swapaxes(v8(84), 1, 2)], {}, "yolo v8"),
    "v8 of one class": ([v8(5)], {}, "yolo v8"),
    "v8 of three named classes": ([v8(7)], {"names": {0: "Person", 1: "cat", 2: "dog"}, "task": "detect"}, "yolo v8"),
    "v8 of 81 named classes": ([v8(85)], {"names": COCO | {80: "forklift"}, "task": "detect"}, "yolo v8"),
    "v8 of one class, transposed": ([np.swapaxes(v8(5), 1, 2)], {}, "yolo v8"),
    "v8 for masks": ([v8(116, behind=(84, -2, 2)), PROTOTYPES], {}, "yolo v8, its masks unused"),
    "v8 for masks, as it says": (
        [v8(116, behind=(84, -2, 2)), PROTOTYPES],
        {"names": COCO, "task": "segment"},
        "yolo v8, its masks unused",
    ),
    "v8 for masks of one class": ([v8(37, behind=(5, 0, 1)), PROTOTYPES], {}, "yolo v8, its masks unused"),
    "v8 for poses": ([v8(56, behind=KEYPOINTS)], {}, "yolo v8, its keypoints unused"),
    "v8 for poses, as it says": (
        [v8(56, behind=KEYPOINTS)],
        {"names": {0: "person"}, "task": "pose", "kpt_shape": [17, 3]},
        "yolo v8, its keypoints unused",
    ),
    "v5 of COCO": ([v5(85)], {}, "yolo v5"),
    "v5 with its raw heads": ([v5(85), *[np.zeros((1, 3, side, side, 85)) for side in (16, 8, 4)]], {}, "yolo v5"),
    "v5 of one class": ([v5(6)], {}, "yolo v5"),
    "v5 of two named classes": ([v5(7)], {"names": ["person", "car"]}, "yolo v5"),
    "v5 with one row for each cell, as it says": ([v5(85, count=CELLS)], {"names": COCO}, "yolo v5"),
    "v5 for masks": ([v5(117, behind=(85, -2, 2)), PROTOTYPES], {}, "yolo v5, its masks unused"),
    "after suppression": ([end2end()], {"names": COCO}, "yolo end2end"),
    "after suppression, of 100": ([end2end(count=100)], {"names": COCO}, "yolo end2end"),
    "after suppression, for masks": (
        [end2end(38, behind=(-2, 2)), PROTOTYPES],
        {"names": COCO},
        "yolo end2end, its masks unused",
    ),
    "after suppression, for poses": (
        [end2end(57, behind=(0, 64))],
        {"names": {0: "person"}, "task": "pose"},
        "yolo end2end, its keypoints unused",
    ),
    "boxes and labels": (
        [np.array([[24, 12, 40, 52, 0.9], [0, 0, 9, 9, 0.2]]), np.array([0, 1])],
        {"names": COCO},
        "boxes",
    ),
    "SSD": (
        [np.array([[[[0, 0, 0.9, 24 / 128, 12 / 128, 40 / 128, 52 / 128], [-1, 0, 0, 0, 0, 0, 0]]]])],
        {"names": COCO},
        "ssd",
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_that_is_exported_finds_its_person(file, engine, head):
    outputs, says, label = HEADS[head]
    called = ["boxes", "labels"] if head == "boxes and labels" else None
    detector = open_detector(ModelSettings(path=file(*outputs, called=called, **says), engine=engine, pad=0))
    assert f"({label})" in detector.description
    found = [row for row in rows(detector(FRAME)) if row[4] >= 0.3]
    assert found == [PERSON]


FASTEST = np.zeros((1, 85, 4, 4))
FASTEST[0, 5] = 1
REFUSED = {
    "rotated boxes": ([v8(20)], {"task": "obb", "names": {0: "plane"}}, r"task 'obb': it gives rotated boxes"),
    "rotated boxes, unsaid": ([v8(6, behind=(5, -1.5, 1.5))], {}, r"rotated boxes"),
    "classification": ([np.zeros((1, 1000))], {"task": "classify"}, r"not recognised .*1×1000.*'output'"),
    "logits": ([v8(84, behind=(4, -9.0, -3.0))], {}, r"no probabilities\. Export it again with its decoder"),
    "fractions (RT-DETR)": ([np.swapaxes(v8(84, scale=1 / 128), 1, 2)], {}, r"fractions of the picture.*RT-DETR"),
    "fractions of 300 queries": ([v8(84, count=300, scale=1 / 128)], {}, r"fractions of the picture"),
    "relative to cells (YOLOX)": ([v5(85, count=CELLS, scale=1 / 40)], {}, r"relative to cells \(as YOLOX's\)"),
    "relative to cells, one of them far": (
        [beside_one_far(v5(85, count=CELLS, scale=1 / 40))],
        {},
        r"relative to cells",
    ),
    "objectness for each cell (YOLOX, YOLOv6)": (
        [v5(85, count=CELLS)],
        {},
        r"prepared.*YOLOX.*detector\.color=BGR --set detector\.scale=1\.0.*YOLOv6: --set detector\.color=RGB",
    ),
    "six columns for each cell": ([v5(6, count=CELLS)], {}, r"objectness for each cell.*detector\.form=v8"),
    "RT-DETR of one class": (
        [np.swapaxes(v8(5, count=300, scale=1 / 128), 1, 2)],
        {"names": {0: "person"}, "task": "detect"},
        r"fractions of the picture",
    ),
    "RT-DETR of one class, unsaid": (
        [np.swapaxes(v8(5, count=300, scale=1 / 128), 1, 2)],
        {},
        r"1×300×5\..*detector\.form=v8.*RT-DETR",
    ),
    "RT-DETR of two classes": (
        [np.swapaxes(v8(6, count=300, scale=1 / 128, behind=(5, 0, 0.02)), 1, 2)],
        {"names": ["person", "car"], "task": "detect"},
        r"after suppression .*no number of a class.*RT-DETR",
    ),
    "score and class behind fractions": (
        [np.swapaxes(v8(6, count=300, scale=1 / 128), 1, 2)],
        {"names": ["person", "car"], "task": "detect"},
        r"after suppression .*fractions of the picture",
    ),
    "score and class behind centre and size": (
        [np.swapaxes(v8(6, count=300), 1, 2)],
        {"names": COCO},
        r"after suppression .*x2 y2 is less than x1 y1",
    ),
    "boxes and labels with an axis of one picture (MMDeploy)": (
        [np.zeros((1, 100, 5)), np.zeros((1, 100))],
        {},
        r"prepared.*RTMDet: --set detector\.color=BGR --set .detector\.mean",
    ),
    "an output for each scale": (
        [np.zeros((1, 3, side, side, 85)) for side in (16, 8, 4)],
        {},
        r"not recognised .*1×3×16×16×85.*decoder included",
    ),
    "raw heads of v8": ([np.zeros((1, 144, side, side)) for side in (16, 8, 4)], {}, r"not recognised"),
    "raw heads of v3": ([np.zeros((1, 255, 8, 8))], {}, r"not recognised .*1×255×8×8"),
    "many classes without names": (
        [v8(15)],
        {},
        r"has 11 classes and does not name them: give --set detector\.person=N",
    ),
    "classes without people": ([v8(6)], {"names": {0: "helmet", 1: "vest"}}, r"helmet, vest: none of them is 'person'"),
    "SSD without names": ([np.zeros((1, 1, 9, 7))], {}, r"does not name them.*15 of Pascal VOC's"),
    "after suppression, without names": ([end2end()], {}, r"unknown number of classes"),
    "suppressed by YOLOv7": ([np.zeros((9, 7))], {}, r"not recognised .*9×7"),
    "boxes, scores and labels apart": (
        [np.zeros((9, 4)), np.zeros(9), np.zeros(9)],
        {},
        r"not recognised .*9×4.*kind = \"callable\"",
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("head", REFUSED)
def test_what_is_ambiguous_or_not_decoded_is_refused_with_what_was_seen(file, engine, head):
    outputs, says, message = REFUSED[head]
    with pytest.raises(DetectorError, match=message):
        open_detector(ModelSettings(path=file(*outputs, **says), engine=engine))


@pytest.mark.parametrize("head", ["v8 for masks", "v8 for poses", "after suppression, for masks", "v5 for masks"])
def test_a_described_yolo_is_not_blind_either(file, head):
    outputs, _, label = HEADS[head]
    detector = open_detector(ModelSettings(path=file(*outputs), output="yolo", engine="onnxruntime"))
    assert label in detector.description
    assert [row for row in rows(detector(FRAME)) if row[4] >= 0.3] == [PERSON]


def test_yolox_is_read_once_its_input_is_said(file):
    path = file(v5(85, count=CELLS))
    detector = open_detector(ModelSettings(path=path, engine="onnxruntime", color="BGR", scale=1.0))
    assert [row for row in rows(detector(FRAME)) if row[4] >= 0.3] == [PERSON]
    for half in ({"color": "BGR"}, {"scale": 1.0}, {"form": "v5"}):
        with pytest.raises(DetectorError, match="nothing says how its pictures are prepared"):
            open_detector(ModelSettings(path=path, engine="onnxruntime", **half))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("output", ["auto", "boxes"])
def test_boxes_and_labels_may_have_an_axis_of_one_picture(file, engine, output):
    dets = np.array([[[24, 12, 40, 52, 0.9], [0, 0, 9, 9, 0.2], [0, 0, 64, 64, 0.9], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]])
    path = file(dets, np.array([[0, 0, 1, 0, 0]]), called=["dets", "labels"])
    said = {"color": "BGR", "scale": 0.01735, "mean": (103.53, 116.28, 123.675), "person": 0}
    detector = open_detector(ModelSettings(path=path, engine=engine, output=output, **said))
    assert "(boxes)" in detector.description
    assert [row for row in rows(detector(FRAME)) if row[4] >= 0.3] == [PERSON]


def test_rows_after_suppression_are_checked_on_the_first_picture_that_has_any(file):
    nothing = np.zeros((1, 300, 6), np.float32)
    detector = open_detector(ModelSettings(path=file(nothing, names=COCO), engine="onnxruntime"))
    fractions = nothing.copy()
    fractions[0, 0] = 0.5, 0.5, 0.2, 0.4, 0.9, 0.1
    with pytest.raises(DetectorError, match=r"sixth column holds 0\.1, which is no number of a class"):
        detector._head([fractions])
    assert len(detector._head([nothing])) == 0
    detector._head([end2end().astype(np.float32)])
    detector._head([fractions])  # one odd picture later on ends no camera


@pytest.mark.parametrize("form", ["v5", "v8"])
def test_a_form_with_more_columns_than_there_are_is_refused(file, form):
    path = file(np.swapaxes(v8(5), 1, 2)[:, :, : 5 if form == "v5" else 4])
    with pytest.raises(DetectorError, match=r"1×84×8400|Correct .form."):
        open_detector(ModelSettings(path=path, engine="onnxruntime", form=form))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_order_of_the_axes_is_that_of_the_file(file, engine):
    detector = open_detector(ModelSettings(path=file(v8(84), takes=(1, 128, 128, 3)), engine=engine))
    assert len(detector(FRAME)) == 1
    with pytest.raises(DetectorError, match=r"not a colour picture\. Correct 'layout'"):
        open_detector(ModelSettings(path=file(v8(84), takes=(1, 1, 128, 128)), engine=engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", [None, "NCHW"])
def test_a_fixed_batch_is_named_as_the_reason(file, engine, layout):
    path = file(np.repeat(v8(84), 8, 0), takes=(8, 3, 128, 128))
    with pytest.raises(DetectorError, match=r"8 pictures at once \(a fixed batch.*Export it again with a batch of 1"):
        open_detector(ModelSettings(path=path, engine=engine, layout=layout))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_of_open_size_takes_the_one_that_it_was_exported_for(file, engine):
    path = file(v8(84), takes=(1, 3, "height", "width"), imgsz=[128, 128], names=COCO, task="detect")
    assert [row for row in rows(open_detector(ModelSettings(path=path, engine=engine))(FRAME)) if row[4] >= 0.3] == [
        PERSON
    ]
    for unusable in ("[128]", "128, 128", "[0, 128]", "['a', 1]", "["):
        path = file(v8(84), takes=(1, 3, "height", "width"), imgsz=unusable)
        with pytest.raises(DetectorError, match=r"leaves the size of its input open.*detector\.size=\[640, 640\]"):
            open_detector(ModelSettings(path=path, engine=engine))


def test_files_of_a_training_library_are_told_how_to_become_onnx(tmp_path):
    (tmp_path / "yolo11n.pt").touch()
    with pytest.raises(DetectorError, match=r"yolo export model=FILE\.pt format=onnx"):
        open_detector(ModelSettings(path=str(tmp_path / "yolo11n.pt")))


# --- IR with a layer DetectionOutput, which tells classes and background


def ssd_ir(path: Path, classes: int, background: int) -> str:
    openvino = pytest.importorskip("openvino")
    path.parent.mkdir(exist_ok=True)
    opset = openvino.opset8
    picture = opset.parameter([1, 3, 128, 128], np.float32, name="data")
    nothing = opset.multiply(opset.reduce_max(picture, opset.constant([0, 1, 2, 3], np.int64)), np.float32(0))
    priors = np.zeros((1, 2, 4 * 4), np.float32)
    priors[0, 0] = np.array([24, 12, 40, 52] * 4, np.float32) / 128
    priors[0, 1] = 1
    confidence = np.zeros((4, classes), np.float32)
    confidence[:, background] = 1
    confidence[0] = np.where(np.arange(classes) == (1 - background if classes == 2 else 1), 0.9, 0)
    layer = opset.detection_output(
        opset.constant(np.zeros((1, 16), np.float32)),
        opset.add(opset.constant(confidence.reshape(1, -1)), nothing),
        opset.constant(priors),
        {
            "background_label_id": background,
            "keep_top_k": [9],
            "nms_threshold": 0.5,
            "confidence_threshold": 0.01,
            "share_location": True,
            "normalized": True,
        },
    )
    openvino.save_model(openvino.Model([layer], [picture]), path)
    return str(path)


@pytest.mark.parametrize("background", [0, 1])
@pytest.mark.parametrize("output", ["auto", "ssd"])
def test_of_two_classes_of_an_ssd_people_are_the_one_that_is_not_background(tmp_path, background, output):
    detector = open_detector(ModelSettings(path=ssd_ir(tmp_path / "two.xml", 2, background), output=output))
    assert "(ssd)" in detector.description
    assert [row for row in rows(detector(FRAME)) if row[4] >= 0.3] == [PERSON]


def test_of_more_classes_of_an_ssd_the_number_has_to_be_given_and_is_not_the_background(tmp_path):
    path = ssd_ir(tmp_path / "four.xml", 4, 0)
    with pytest.raises(DetectorError, match=r"an SSD with 4 classes, number 0 the background"):
        open_detector(ModelSettings(path=path))
    assert len(open_detector(ModelSettings(path=path, person=1))(FRAME)) == 1
    with pytest.raises(DetectorError, match=r"class 0 of .*is the background, among 4"):
        open_detector(ModelSettings(path=path, person=0))


# --- detectors of the catalogue


@pytest.fixture
def catalogued(tmp_path, monkeypatch):
    """A file of our own in the catalogue, and in this user's folder of detectors."""
    source = Path(ssd_ir(tmp_path / "mine.xml", 2, 1))
    like = catalogue()["person-detection-0202"]
    files = tuple(
        CatalogueFile(
            path=f"FP16/mine{kind}",
            size=source.with_suffix(kind).stat().st_size,
            sha384=hashlib.sha384(source.with_suffix(kind).read_bytes()).hexdigest(),
            url="",
        )
        for kind in (".xml", ".bin")
    )
    mine = msgspec.structs.replace(
        like, name="mine", input_hw=(128, 128), confidence=0.35, start=0.45, files={"fp16": files}
    )
    monkeypatch.setattr(catalogue_module, "catalogue", lambda: {"mine": mine})
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    fetch(mine, "fp16", folder=user_folder(), origin=str(tmp_path))
    return mine


def test_a_name_is_enough_and_its_scores_reach_filter_and_tracker(catalogued, settings):  # noqa: F811
    with contextlib.closing(Agent(settings({"detector.kind": "model", "detector.path": "mine"}))) as agent:
        assert "mine FP16 (ssd)" in agent.pipeline.detector.description
        assert agent.pipeline.filter._confidence == 0.35
        assert agent.pipeline.detection._tracker.high_confidence == 0.45
    chosen = {"filter.confidence": 0.2, "tracker.high_confidence": 0.3}
    table = {"detector.kind": "model", "detector.path": "mine"}
    with contextlib.closing(Agent(settings(table | chosen))) as agent:
        assert (agent.pipeline.filter._confidence, agent.pipeline.detection._tracker.high_confidence) == (0.2, 0.3)


def test_a_damaged_file_is_not_run_under_its_name(catalogued):
    weights = located(catalogued)[1].with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DetectorError, match="reid-edge detector get mine --force"):
        open_detector(ModelSettings(path="mine"))


def test_another_release_of_a_detector_is_told_by_its_name_and_input(catalogued, tmp_path):
    other = Path(ssd_ir(tmp_path / "other" / "mine.xml", 2, 0))
    detector = open_detector(ModelSettings(path=str(other), person=1))
    assert scores_of(detector).confidence == 0.35
    assert scores_of(open_detector(ModelSettings(path=str(tmp_path / "mine.xml")))).confidence == 0.35
    renamed = other.rename(other.with_name("renamed.xml"))
    other.with_suffix(".bin").rename(renamed.with_suffix(".bin"))
    assert scores_of(open_detector(ModelSettings(path=str(renamed)))) == AdvisedScores()


# --- real detectors of the catalogue, as far as they are there


def real(real_data, name: str, precision: str) -> Path:
    path = real_data / "detectors" / name / catalogue()[name].files[precision][0].path
    if not path.is_file():
        pytest.skip(f"{path} is not there: docs/detectors.md says where it is from")
    return path


@pytest.mark.parametrize("name", catalogue())
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_real_file_of_the_catalogue_is_known_by_its_content(real_data, tmp_path, name, precision):
    pytest.importorskip("openvino")
    if precision not in catalogue()[name].files:
        pytest.skip("not in the catalogue")
    path = real(real_data, name, precision)
    for kind in (".xml", ".bin"):
        (tmp_path / f"renamed{kind}").write_bytes(path.with_suffix(kind).read_bytes())
    detector = open_detector(ModelSettings(path=str(tmp_path / "renamed.xml"), threads=1))
    known = catalogue()[name]
    assert (scores_of(detector).confidence, scores_of(detector).start) == (known.confidence, known.start)
    assert f"({known.output})" in detector.description
