"""Decoders against slow loops, a tiny ONNX file on both engines, and real detectors where REID_EDGE_DATA has them."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnxruntime
import pytest

from reid_edge.camera.detectors import DetectorSettings, ModelSettings, open_detector, trouble_of
from reid_edge.camera.detectors.model import heads
from reid_edge.camera.detectors.model.preparation import Preparation
from reid_edge.camera.detectors.model.yolo_layout import yolo_form
from reid_edge.camera.filters import DetectionFilter, FilterSettings, nms
from reid_edge.camera.frames import Frame
from reid_edge.camera.sources import SourceSettings, open_source
from reid_edge.errors import DetectorError
from tests.camera.test_detectors import rows

SIZE = (96, 160)


def same(found, expected) -> None:
    got = np.array(rows(found)).reshape(-1, 5)
    assert len(got) == len(expected) > 0
    assert got == pytest.approx(np.array(expected), abs=1e-3)


# --- decoders


def test_ssd_rows_end_at_a_negative_image_and_only_people_count(rng):
    table = rng.random((200, 7)).astype(np.float32)
    table[:, 0], table[:, 1] = 0, rng.integers(0, 3, 200)
    table[150, 0] = -1
    expected = []
    for image, label, score, x1, y1, x2, y2 in table.tolist():
        if image < 0:
            break
        if label == 1 and score >= 0.3:
            expected.append([x1 * 160, y1 * 96, x2 * 160, y2 * 96, score])
    for shape in ((1, 1, 200, 7), (1, 200, 7), (200, 7)):
        same(heads.ssd([table.reshape(shape)], size=SIZE, person=1, min_score=0.3), expected)


def yolo_table(rng, count: int, channels: int) -> np.ndarray:
    table = rng.random((count, channels)).astype(np.float32)
    table[:, :4] *= 96
    return table


def obvious_yolo(table, person, min_score, objectness):
    expected = []
    for row in table.tolist():
        classes = row[5:] if objectness else row[4:]
        score = classes[person] * (row[4] if objectness else 1)
        if score >= min_score and classes[person] == max(classes):
            x, y, width, height = row[:4]
            expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2, score])
    return expected


@pytest.mark.parametrize(("classes", "person"), [(80, 0), (3, 2), (1, 0)])
def test_yolo_v8_either_way_round(rng, classes, person):
    table = yolo_table(rng, 2100, 4 + classes)
    expected = obvious_yolo(table, person, 0.4, objectness=False)
    for output in (table[None], np.ascontiguousarray(table.T)[None]):
        same(heads.yolo([output], form="v8", person=person, min_score=0.4), expected)


@pytest.mark.parametrize(("classes", "person"), [(80, 0), (3, 2), (1, 0)])
def test_yolo_v5_multiplies_objectness(rng, classes, person):
    table = yolo_table(rng, 2520, 5 + classes)
    expected = obvious_yolo(table, person, 0.2, objectness=True)
    for output in (table[None], np.ascontiguousarray(table.T)[None]):
        same(heads.yolo([output], form="v5", person=person, min_score=0.2), expected)


@pytest.mark.parametrize("count", [300, 4])
def test_yolo_after_suppression_is_taken_as_it_is(rng, count):
    table = yolo_table(rng, count, 6)
    table[:, 5] = rng.integers(0, 2, count)
    table[0, 4:] = 0.9, 0
    expected = [row[:5] for row in table.tolist() if row[5] == 0 and row[4] >= 0.5]
    same(heads.yolo([table[None]], form="end2end", person=0, min_score=0.5), expected)


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((1, 84, 8400), "v8"),
        ((1, 8400, 84), "v8"),
        ((1, 5, 8400), "v8"),
        ((1, 25200, 85), "v5"),
        ((1, 85, 25200), "v5"),
        ((1, 25200, 6), "v5"),
        ((1, 8400, 5), "v8"),
    ],
)
def test_a_yolo_is_told_by_its_shape(shape, form):
    assert yolo_form(shape) == form


def obvious_fastestdet(grid, person, min_score):
    """After dog-qiuqiu/FastestDet, example/onnx-runtime/runtime.py."""
    height, width = grid.shape[1:]
    expected = []
    for row in range(height):
        for column in range(width):
            cell = grid[:, row, column].tolist()
            score = cell[0] ** 0.6 * max(cell[5:]) ** 0.4
            if score >= min_score and int(np.argmax(cell[5:])) == person:
                x = (column + 2 / (1 + math.exp(-2 * cell[1])) - 1) / width
                y = (row + 2 / (1 + math.exp(-2 * cell[2])) - 1) / height
                w, h = 1 / (1 + math.exp(-cell[3])), 1 / (1 + math.exp(-cell[4]))
                box = [(x - w / 2) * 160, (y - h / 2) * 96, (x + w / 2) * 160, (y + h / 2) * 96]
                expected.append([*box, score])
    return expected


@pytest.mark.parametrize(("classes", "person"), [(80, 0), (3, 2), (1, 0)])
def test_fastestdet_as_its_authors_decode_it(rng, classes, person):
    grid = rng.random((5 + classes, 12, 20)).astype(np.float32)
    grid[1:5] = rng.normal(0, 2, (4, 12, 20))
    found = heads.fastestdet([grid[None]], size=SIZE, person=person, min_score=0.3)
    same(found, obvious_fastestdet(grid, person, 0.3))


def test_nobody_is_no_box(rng):
    nothing = [np.zeros((1, 85, 12, 20), np.float32)]
    assert rows(heads.fastestdet(nothing, size=SIZE, person=0, min_score=0.1)) == []
    assert rows(heads.yolo([np.zeros((1, 84, 100), np.float32)], form="v8", person=0, min_score=0.1)) == []
    assert rows(heads.ssd([np.full((1, 1, 9, 7), -1, np.float32)], size=SIZE, person=1, min_score=0.1)) == []


def test_a_class_that_the_detector_lacks_is_told():
    output = [np.ones((1, 100, 9), np.float32)]
    with pytest.raises(DetectorError, match="5 classes, no class 7"):
        heads.yolo(output, form="v8", person=7, min_score=0.1)
    with pytest.raises(DetectorError, match="more than 7 classes"):
        heads.fastestdet([np.ones((1, 10, 4, 4), np.float32)], size=SIZE, person=7, min_score=0.1)
    with pytest.raises(DetectorError, match="one output"):
        heads.ssd(output, size=SIZE, person=1, min_score=0.1)


# --- preparation


def preparation(**options) -> Preparation:
    usual = {"size": SIZE, "letterbox": True, "rgb": False, "mean": (0, 0, 0), "scale": 1.0, "pad": 114}
    return Preparation(**(usual | {"nhwc": False, "dtype": np.dtype(np.float32)} | options))


@pytest.mark.parametrize("image_wh", [(640, 480), (480, 640), (160, 96), (31, 500), (1, 1)])
@pytest.mark.parametrize("letterbox", [True, False])
def test_a_box_found_in_the_input_is_where_it_was_in_the_frame(image_wh, letterbox):
    width, height = image_wh
    batch, placement = preparation(letterbox=letterbox)(np.full((height, width, 3), 255, np.uint8))
    y, x = np.nonzero(batch[0, 0] == 255)
    whole = np.float32([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
    assert placement.to_frame(whole)[0] == pytest.approx([0, 0, width, height], abs=1e-3)
    assert letterbox or len(x) == 96 * 160
    bars = batch[0, 0][batch[0, 0] != 255]
    assert (bars == 114).all()
    aspect = (x.max() + 1 - x.min()) / (y.max() + 1 - y.min())
    assert not letterbox or min(image_wh) < 32 or aspect == pytest.approx(width / height, rel=0.03)


def test_values_layout_and_channels_are_as_described(rng):
    image = rng.integers(0, 256, (96, 160, 3), dtype=np.uint8)
    options = {"rgb": True, "mean": (10.0, 20.0, 30.0), "scale": 0.5}
    batch, _ = preparation(**options)(image)
    expected = (image[..., ::-1].astype(np.float64) - [10, 20, 30]) * 0.5
    assert batch.shape == (1, 3, 96, 160) and batch.dtype == np.float32
    assert batch[0].transpose(1, 2, 0) == pytest.approx(expected, abs=1e-4)
    batch, _ = preparation(**options, nhwc=True, dtype=np.dtype(np.float16))(image)
    assert batch.shape == (1, 96, 160, 3) and batch.dtype == np.float16
    assert batch[0] == pytest.approx(expected, abs=0.1)
    batch, _ = preparation(dtype=np.dtype(np.uint8), nhwc=True)(image)
    assert batch.dtype == np.uint8 and (batch[0] == image).all()


# --- a tiny network: one candidate per 8×8 pixels, as sure as its first channel is bright

onnx = pytest.importorskip("onnx")
ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture
def tiny(tmp_path):
    """YOLO v8 of one class for 64×64 RGB, 0 to 1: boxes of 8×16 around the centre of each cell."""

    def write(name="tiny.onnx", sides=(64, 64), inputs=1):
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        weights = np.zeros((1, 3, 8, 8), np.float32)
        weights[0, 0] = 1 / 64
        centres = np.arange(8, dtype=np.float32) * 8 + 4
        y, x = (grid.ravel() for grid in np.meshgrid(centres, centres, indexing="ij"))
        boxes = np.stack([x, y, np.full(64, 8), np.full(64, 16)])[None].astype(np.float32)
        constants = [("w", weights), ("boxes", boxes), ("shape", np.array([1, 1, 64], np.int64))]
        nodes = [
            helper.make_node("Conv", ["image", "w"], ["means"], strides=[8, 8]),
            helper.make_node("Reshape", ["means", "shape"], ["scores"]),
            helper.make_node("Concat", ["boxes", "scores"], ["out"], axis=1),
        ]
        takes = [helper.make_tensor_value_info("image", kind, [1, 3, *sides])]
        takes += [helper.make_tensor_value_info(f"more{number}", kind, [1]) for number in range(1, inputs)]
        graph = helper.make_graph(
            nodes,
            "tiny",
            takes,
            [helper.make_tensor_value_info("out", kind, [1, 5, 64])],
            [onnx.numpy_helper.from_array(array, key) for key, array in constants],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / name)
        return str(tmp_path / name)

    return write


def red_at(x: int, y: int, size_wh=(128, 64)) -> Frame:
    """Black, with 16×16 pixels of pure red: as 64×64 letterbox one 8×8 cell, 16 rows below the bar."""
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    image[y : y + 16, x : x + 16] = (0, 0, 255)
    return Frame(image, 0, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_detector_from_a_file_finds_what_it_is_made_for(tiny, engine):
    pytest.importorskip(engine)
    detector = open_detector(ModelSettings(path=tiny(), output="yolo", engine=engine, threads=1, pad=0))
    assert "yolo v8" in detector.description and engine in detector.description
    # Cell (5, 2) of the input is x 40–48, y 16–24; its box 8×16 is y 12–28; bars of 16 above, factor 2.
    assert rows(detector(red_at(80, 0))) == [[80, pytest.approx(-8), 96, pytest.approx(24), pytest.approx(1)]]
    assert rows(detector(red_at(0, 48))) == [[0, 40, 16, 72, pytest.approx(1)]]
    assert rows(detector(Frame(np.zeros((64, 128, 3), np.uint8), 0, 1))) == []
    detector.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_that_are_no_numbers_are_told_until_they_are(tiny, engine):
    """As of a network whose float16 overflows: no box has a score, so nobody would be seen, silently."""
    pytest.importorskip(engine)
    detector = open_detector(
        ModelSettings(path=tiny(), output="yolo", engine=engine, threads=1, pad=0, mean=(float("nan"), 0.0, 0.0))
    )
    assert rows(detector(red_at(80, 0))) == []
    assert "not been numbers" in trouble_of(detector)
    detector._prepare = replace(detector._prepare, mean=(0.0, 0.0, 0.0))
    assert len(detector(red_at(80, 0))) == 1
    assert trouble_of(detector) == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_wrong_channel_order_sees_nothing_red(tiny, engine):
    pytest.importorskip(engine)
    detector = open_detector(ModelSettings(path=tiny(), output="yolo", engine=engine, threads=1, pad=0, color="BGR"))
    assert rows(detector(red_at(80, 0))) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_of_open_size_needs_one_and_runs_with_it(tiny, engine):
    pytest.importorskip(engine)
    path = tiny(sides=("h", "w"))
    with pytest.raises(DetectorError, match=r"detector\.size=\[640, 640\]"):
        open_detector(ModelSettings(path=path, output="yolo", engine=engine))
    detector = open_detector(ModelSettings(path=path, output="yolo", engine=engine, size=(64, 64), pad=0))
    assert len(detector(red_at(80, 0))) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "ssd"}, "Is 'output' right"),
        ({"output": "fastestdet"}, "FastestDet gives"),
        ({"output": "yolo", "size": (32, 32)}, "64×64, size says 32×32"),
        ({"output": "yolo", "layout": "NHWC"}, "not a colour picture"),
        ({"output": "yolo", "person": 3}, "1 class, no class 3"),
        ({"output": "yolo", "form": "end2end"}, "of form end2end"),
    ],
)
def test_a_wrong_description_is_told_at_the_start(tiny, engine, options, message):
    pytest.importorskip(engine)
    with pytest.raises(DetectorError, match=message):
        open_detector(ModelSettings(path=tiny(), engine=engine, **options))


@pytest.mark.parametrize("engine", ENGINES)
def test_files_that_are_no_detector_are_refused(tiny, tmp_path, engine):
    pytest.importorskip(engine)
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx"):
        with pytest.raises(DetectorError, match=f"{name}"):
            open_detector(ModelSettings(path=str(tmp_path / name), output="yolo", engine=engine))
    with pytest.raises(DetectorError, match="expected one input"):
        open_detector(ModelSettings(path=tiny("two.onnx", inputs=2), output="yolo", engine=engine))


@pytest.mark.parametrize(
    ("engine", "device", "message"),
    [
        ("onnxruntime", "GPU", "ONNX Runtime has no device 'GPU' here"),
        ("onnxruntime", "CUDA", "onnxruntime-gpu"),
        ("auto", "TENSORRT", "ONNX Runtime has no device 'TENSORRT' here"),
        ("auto", "GPU.7", "cannot compile the model for GPU.7"),
        ("openvino", "NPU", "cannot compile the model for NPU"),
    ],
)
def test_a_device_that_is_not_here_is_refused_whatever_the_engine(tiny, engine, device, message):
    with pytest.raises(DetectorError, match=message):
        open_detector(ModelSettings(path=tiny(), output="yolo", engine=engine, device=device))


def test_a_detector_runs_on_a_device_that_only_openvino_has(tiny):
    assert open_detector(ModelSettings(path=tiny(), output="yolo", device="AUTO")).description.endswith("AUTO")


def test_a_detector_runs_by_the_provider_asked_for(tiny, monkeypatch):
    """A provider that has the CPU's kernels stands in for CUDA's."""
    asked = []
    real = onnxruntime.InferenceSession

    class Session(real):
        def __init__(self, model, options, providers):
            asked.append(providers)
            super().__init__(model, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: Session.get_providers(None))
    detector = open_detector(ModelSettings(path=tiny(), output="yolo", device="CUDA.1"))
    assert asked == [[("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}), "CPUExecutionProvider"]]
    assert detector.description.endswith("CUDA.1")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_only_the_file_whose_hash_the_settings_give_is_loaded(tiny, engine):
    path = tiny()
    right = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    detector = open_detector(ModelSettings(path=path, output="yolo", engine=engine, sha256=right))
    found = detector(red_at(40, 20))
    Path(path).write_bytes(b"\xff" * Path(path).stat().st_size)  # in place, while it runs
    np.testing.assert_array_equal(detector(red_at(40, 20)).boxes, found.boxes)
    with pytest.raises(DetectorError, match=rf"sha256 [0-9a-f]{{64}}, detector\.sha256 {right}"):
        open_detector(ModelSettings(path=path, output="yolo", engine=engine, sha256=right))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_in_another_file_are_read_beside_it_but_not_under_a_hash_of_the_first(tiny, tmp_path, engine):
    one_file = tiny()
    whole = onnx.load(one_file)
    path = tmp_path / "apart" / "apart.onnx"
    path.parent.mkdir()
    onnx.save(whole, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    expected = open_detector(ModelSettings(path=one_file, output="yolo", engine=engine))(red_at(40, 20))
    found = open_detector(ModelSettings(path=str(path), output="yolo", engine=engine))(red_at(40, 20))
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DetectorError, match="weights in other files"):
        open_detector(ModelSettings(path=str(path), output="yolo", engine=engine, sha256=digest))


def test_missing_files_and_other_formats_are_refused(tmp_path):
    (tmp_path / "lone.xml").write_text("<net/>")
    for name, message in (
        ("no.onnx", "does not exist"),
        ("lone.xml", r"lone\.bin does not exist"),
        ("a.pt", "expected a file"),
    ):
        with pytest.raises(DetectorError, match=message):
            open_detector(ModelSettings(path=str(tmp_path / name), output="ssd"))
    (tmp_path / "lone.bin").write_bytes(b"")
    with pytest.raises(DetectorError, match="ONNX Runtime reads"):
        open_detector(ModelSettings(path=str(tmp_path / "lone.xml"), output="ssd", engine="onnxruntime"))


def test_settings_are_checked_by_name():
    with pytest.raises(msgspec.ValidationError, match="output"):
        msgspec.convert({"kind": "model", "path": "x.onnx", "output": "rcnn"}, DetectorSettings)


# --- real detectors, real pedestrians (docs/detectors.md says where they come from)


@pytest.fixture
def detectors(real_data):
    folder = real_data / "detectors"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: docs/detectors.md says what goes into it")
    return folder


def pedestrians(real_data) -> Frame:
    """Frame 200: eight people, two of them far away."""
    with open_source(SourceSettings(uri=str(real_data / "vtest.avi"), stride=200)) as source:
        return [source.read(30), source.read(30)][1]


def test_a_real_ssd_finds_real_pedestrians(real_data, detectors):
    pytest.importorskip("openvino")
    path = detectors / "pedestrian-detection-adas-0002/FP16/pedestrian-detection-adas-0002.xml"
    detector = open_detector(ModelSettings(path=str(path), output="ssd", threads=2))
    picture = pedestrians(real_data)
    found = DetectionFilter(FilterSettings(confidence=0.5))(detector(picture), picture)
    assert 5 <= len(found) <= 9
    heights, widths = found.boxes[:, 3] - found.boxes[:, 1], found.boxes[:, 2] - found.boxes[:, 0]
    assert (heights > 1.5 * widths).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_real_fastestdet_gives_what_its_authors_loop_gives(real_data, detectors, engine):
    pytest.importorskip(engine)
    onnxruntime = pytest.importorskip("onnxruntime")
    path = str(detectors / "FastestDet.onnx")
    picture = pedestrians(real_data)
    resized = cv2.resize(picture.image, (352, 352), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)[None] / 255
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    grid = session.run(None, {session.get_inputs()[0].name: resized.astype(np.float32)})[0][0]
    expected = np.array(obvious_fastestdet(grid, 0, 0.5)) * [768 / 160, 576 / 96, 768 / 160, 576 / 96, 1]
    detector = open_detector(ModelSettings(path=path, output="fastestdet", engine=engine, min_score=0.5, threads=2))
    found = detector(picture)
    assert len(nms(found.boxes, found.scores, 0.5)) >= 5
    got = np.array(rows(found))
    assert len(got) == len(expected)
    assert got == pytest.approx(expected, abs=0.5 if engine == "onnxruntime" else 2)
