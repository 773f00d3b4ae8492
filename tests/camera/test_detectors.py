import re

import numpy as np
import pytest

from reid_edge.camera.detectors import CallableSettings, MotChallengeSettings, open_detector
from reid_edge.camera.frames import Detections, Frame
from reid_edge.errors import DetectorError


def frame(index: int = 0, size_wh=(640, 480), captured_us: int = 0) -> Frame:
    return Frame(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), captured_us, index)


def rows(detections: Detections) -> list[list[float]]:
    assert detections.boxes.dtype == detections.scores.dtype == np.float32
    assert detections.boxes.shape == (len(detections), 4) and detections.scores.shape == (len(detections),)
    return [[*box, score] for box, score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True)]


# --- MOTChallenge


def motchallenge(path, **options):
    return open_detector(MotChallengeSettings(path=str(path), **options))


@pytest.fixture
def det(tmp_path):
    path = tmp_path / "det.txt"
    path.write_text(
        "2,-1,10.5,20,30,60,0.75,-1,-1,-1\n1,-1,1,2,3,4,0.5,-1,-1,-1\n\n2,-1,100,50,20,40,1,-1,-1,-1\n",
        encoding="utf-8",
    )
    return path


def test_frames_of_the_file_count_from_one(det):
    detector = motchallenge(det)
    assert rows(detector(frame(0))) == [[1, 2, 4, 6, 0.5]]
    assert rows(detector(frame(1))) == [[10.5, 20, 40.5, 80, 0.75], [100, 50, 120, 90, 1]]
    assert rows(detector(frame(2))) == []


def test_frames_may_count_from_zero_without_a_frame_zero_and_a_looped_video_begins_again(det):
    detector = motchallenge(det, first_frame=0, period=10)
    assert rows(detector(frame(1))) == [[1, 2, 4, 6, 0.5]]
    assert rows(detector(frame(31))) == [[1, 2, 4, 6, 0.5]]


def test_what_a_caller_does_to_boxes_does_not_change_the_next_round(det):
    detector = motchallenge(det, period=2)
    detector(frame(0)).boxes[:] = 0
    assert rows(detector(frame(2))) == [[1, 2, 4, 6, 0.5]]


def test_a_header_names_the_columns(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("﻿Score, height, width, Y, X, frame_id, colour\n0.5,4,3,2,1,1,red\n", encoding="utf-8")
    assert rows(motchallenge(path)(frame(0))) == [[1, 2, 4, 6, 0.5]]


@pytest.mark.parametrize("line", ["1,-1,1,2,3,4", "1,-1,1,2,3,4,-1,-1,-1,-1", "1,7,1,2,3,4, "])
def test_a_score_that_is_not_given_is_one(tmp_path, line):
    (tmp_path / "det.txt").write_text(line)
    assert rows(motchallenge(tmp_path / "det.txt")(frame(0))) == [[1, 2, 4, 6, 1]]


@pytest.mark.parametrize(
    ("scores", "advised", "mapped"),
    [
        ([95], [0, 100], [0.95]),
        ([95, 60, 72], [0, 100], [0.95, 0.6, 0.72]),
        ([200, 51], [0, 255], [200 / 255, 51 / 255]),
        ([900, 300], [0, 1000], [0.9, 0.3]),
        ([-1, 19, 39], [0, 39], [1, 19 / 39, 1]),
        ([-0.5, 2.5], [-1, 3], [0.125, 0.875]),
    ],
)
def test_the_advice_for_scores_of_another_range_keeps_the_boxes(tmp_path, scores, advised, mapped):
    (tmp_path / "det.txt").write_text("".join(f"1,-1,1,2,30,40,{score}\n" for score in scores))
    with pytest.raises(DetectorError, match=re.escape(f"score_range = {advised}")):
        motchallenge(tmp_path / "det.txt")
    read = motchallenge(tmp_path / "det.txt", score_range=tuple(advised))
    assert read(frame(0)).scores.tolist() == pytest.approx(mapped)


def test_a_file_that_has_a_frame_0_counts_from_0(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "det.txt").write_text("0,-1,1,2,30,40,0.5\n1,-1,5,6,30,40,1\n")
    detector = motchallenge(tmp_path / "det.txt")
    assert rows(detector(frame(0))) == [[1, 2, 31, 42, 0.5]]
    assert rows(detector(frame(1))) == [[5, 6, 35, 46, 1]]
    assert "counted from 0" in caplog.text and "counted from 0" in detector.description


@pytest.mark.parametrize(("lowest", "first"), [(0, 1), (-1, None), (4, 5)])
def test_a_frame_before_the_first_one_is_refused(tmp_path, lowest, first):
    (tmp_path / "det.txt").write_text(f"{lowest},-1,1,2,30,40,0.5\n9,-1,5,6,30,40,1\n")
    with pytest.raises(DetectorError, match=f"has a frame {lowest}, and first_frame"):
        motchallenge(tmp_path / "det.txt", first_frame=first)


def test_fractions_of_the_frame_are_refused_and_read_when_the_settings_say_so(tmp_path):
    (tmp_path / "det.txt").write_text("1,-1,0.25,0.5,0.5,0.25,0.5\n")
    with pytest.raises(DetectorError, match=r"normalised = true"):
        motchallenge(tmp_path / "det.txt")
    read = motchallenge(tmp_path / "det.txt", normalised=True)
    assert rows(read(frame(0, size_wh=(640, 480)))) == [[160, 240, 480, 360, 0.5]]
    (tmp_path / "pixels.txt").write_text("1,-1,10,20,30,40,0.5\n")
    with pytest.raises(DetectorError, match="Leave normalised out for pixels"):
        motchallenge(tmp_path / "pixels.txt", normalised=True)


def test_corners_are_refused_without_a_header_and_read_when_the_settings_say_so(tmp_path):
    (tmp_path / "det.txt").write_text("1,-1,100,20,130,80,0.5\n2,-1,500,300,600,460,0.5\n")
    detector = motchallenge(tmp_path / "det.txt")
    detector(frame(0))
    with pytest.raises(DetectorError, match=r"form = 'xyxy'"):
        detector(frame(1))
    assert rows(motchallenge(tmp_path / "det.txt", form="xyxy")(frame(0))) == [[100, 20, 130, 80, 0.5]]
    assert rows(motchallenge(tmp_path / "det.txt", form="xywh")(frame(1))) == [[500, 300, 1100, 760, 0.5]]


@pytest.mark.parametrize("names", ["x1,y1,x2,y2", "xmin,ymin,xmax,ymax", "left,top,right,bottom"])
def test_a_header_may_name_two_corners(tmp_path, names):
    (tmp_path / "boxes.csv").write_text(f"frame,{names},score\n1,500,300,600,460,0.5\n")
    assert rows(motchallenge(tmp_path / "boxes.csv")(frame(0))) == [[500, 300, 600, 460, 0.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("frame,id,x,y,w\n", "has no height"),
        ("1,-1,1,2,3,4,0.5\n1,-1,1,2,three,4,1\n", "line 2: expected numbers"),
        ("1,-1,1,2\n", "line 1: expected numbers"),
        ("1.5,-1,1,2,3,4,1\n", "whole frame number"),
        ("1,-1,1,2,nan,4,1\n", "finite"),
        ("1e30,-1,1,2,3,4,1\n", "whole frame number"),
        ("1,-1,1,2,3,1e999,1\n", "finite"),
        ("1 -1 1 2 3 4 1\n", "has no"),
        ("\x00\x01", "has no|commas"),
    ],
)
def test_a_file_that_is_something_else_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "det.txt").write_text(text)
    with pytest.raises(DetectorError, match=message):
        motchallenge(tmp_path / "det.txt")


def test_a_missing_or_binary_file_is_refused(tmp_path):
    (tmp_path / "det.txt").write_bytes(bytes(range(128, 256)))
    for name in ("none.txt", "det.txt", ""):
        with pytest.raises(DetectorError, match="readable text file"):
            motchallenge(tmp_path / name)


# --- functions


def two_people(given: Frame) -> list[list[float]]:
    return [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, given.index]]


def test_a_function_is_found_by_name_or_given():
    named = open_detector(CallableSettings(function=f"{__name__}:two_people"))
    for detector in (named, open_detector(two_people)):
        assert rows(detector(frame(1))) == [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 1]]
        assert "two_people" in detector.description
        detector.close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (np.empty((0, 5)), []),
        ([[1, 2, 3, 4]], [[1, 2, 3, 4, 1]]),
        (np.float64([[1, 2, 3, 4, 0.5]]), [[1, 2, 3, 4, 0.5]]),
    ],
)
def test_a_function_may_give_any_array(given, expected):
    assert rows(open_detector(lambda _frame: given)(frame())) == expected


@pytest.mark.parametrize("given", [None, [[1, 2, 3]], [1, 2, 3, 4, 5], "boxes", [[1, 2, 3, "x", 5]]])
def test_a_function_that_gives_something_else_is_named(given):
    def wrong(_frame):
        return given

    with pytest.raises(DetectorError, match=r"wrong gave .*expected N×5"):
        open_detector(wrong)(frame())


def test_detections_that_a_function_gives_are_checked():
    right = Detections(np.array([[1, 2, 3, 4]]), np.array([0.5]))
    assert rows(open_detector(lambda _frame: right)(frame())) == [[1, 2, 3, 4, 0.5]]
    for boxes, scores in (((2, 4), (1,)), ((1, 5), (1,)), ((1, 4), (1, 1))):
        wrong = Detections(np.ones(boxes), np.ones(scores))
        with pytest.raises(DetectorError, match="expected N×4 and N"):
            open_detector(lambda _frame, wrong=wrong: wrong)(frame())


def test_a_function_that_fails_says_on_which_frame():
    with pytest.raises(DetectorError, match="failed on frame 7: ZeroDivisionError") as raised:
        open_detector(lambda given: 1 / (given.index - 7))(frame(7))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("function", "message"),
    [("no.such:f", "ModuleNotFound"), ("json:nothing", "AttributeError"), ("json:__doc__", "is a str")],
)
def test_a_function_that_is_not_there_is_refused(function, message):
    with pytest.raises(DetectorError, match=message):
        open_detector(CallableSettings(function=function))
    with pytest.raises(DetectorError, match="expected settings or a function"):
        open_detector(7)
