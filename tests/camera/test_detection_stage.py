"""The first stage ends what it began, and takes no frame while it is off."""

from types import SimpleNamespace

import numpy as np

from reid_edge.camera.crop_queue import CropQueue
from reid_edge.camera.crop_selector import CropSelector, CropSelectorSettings
from reid_edge.camera.detection_stage import DetectionStage, OffSwitch
from reid_edge.camera.filters import DetectionFilter, FilterSettings
from reid_edge.camera.frames import Detections, Frame
from reid_edge.camera.person_check import PersonCheck
from reid_edge.camera.tracking import Tracker

START = 1_760_000_000_000_000


def test_no_switch_is_never_off():
    assert not OffSwitch(None)()


def test_the_camera_is_off_while_the_file_exists(tmp_path):
    path = tmp_path / "off"
    switch = OffSwitch(path, every_s=0)
    assert not switch()
    path.touch()
    assert switch()
    path.unlink()
    assert not switch()


def test_the_file_is_not_looked_for_at_every_frame(tmp_path):
    path = tmp_path / "off"
    switch = OffSwitch(path, every_s=3600)
    assert not switch()
    path.touch()
    assert not switch()


def test_a_path_that_may_not_be_looked_for_counts_as_off(tmp_path):
    switch = OffSwitch(tmp_path / ("x" * 300), every_s=0)
    assert switch()
    assert "cannot be checked" in switch.trouble


class Frames(list):
    """A source of frames."""

    live = False


def stage_of(frames, *, is_off=lambda: False):
    """A detection stage in which somebody walks across the picture once, and its queue."""
    queue = CropQueue(limit=1000, drop_oldest=False, budget_s=10)
    extractor = SimpleNamespace(input_size=(32, 16))
    stage = DetectionStage(
        Frames(frames), walker, DetectionFilter(FilterSettings()), Tracker(), PersonCheck(by_motion=True),
        CropSelector(), queue, is_off=is_off, extractor=lambda: extractor,
    )  # fmt: skip
    return stage, queue


def walker(frame):
    if frame.index >= 15:
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    box = [50 + 15 * frame.index, 60, 90 + 15 * frame.index, 160]
    return Detections(np.array([box], np.float32), np.array([0.9], np.float32))


def frame_of(index, correction_us=0):
    return Frame(np.zeros((240, 640, 3), np.uint8), START + index * 100_000 + correction_us, index, correction_us)


def ended_in(queue):
    found = []
    while (work := queue.take(1000, timeout_s=0)) is not None and (work.crops or work.ended):
        found += work.ended
    return found


def test_a_track_that_waits_to_be_judged_is_judged_when_the_source_ends():
    stage, queue = stage_of(map(frame_of, range(40)))
    stage.run()
    [ended] = ended_in(queue)
    assert ended.failing == "" and 0.3 < ended.usual_height < 0.5


def test_a_track_that_waits_to_be_judged_is_judged_when_the_camera_is_switched_off():
    waiting = []

    def is_off():
        waiting.append(len(stage._check))
        return len(waiting) > 35

    stage, queue = stage_of(map(frame_of, range(40)), is_off=is_off)
    stage.run()
    assert waiting[30:36] == [1] * 6  # its track has ended, and waits
    assert waiting[36:] == [0] * 4
    assert [ended.failing for ended in ended_in(queue)] == [""]


def test_crops_are_of_strong_boxes_and_know_what_the_check_says_so_far():
    stage, queue = stage_of(map(frame_of, range(40)))
    stage._detector = lambda frame: replace_scores(walker(frame), 0.55 if frame.index % 5 == 1 else 0.9)
    stage._selector = CropSelector(CropSelectorSettings(mode="every"))
    stage.run()
    crops = queue.take(1000, timeout_s=0).crops
    assert len(crops) == 12 and all(crop.details.confidence > 0.6 for crop in crops)
    assert [crop.details.failing for crop in crops][::11] == ["short", "unproven"]
    assert all(0.35 < crop.details.usual_height < 0.5 for crop in crops)
    assert stage._check.passed == 1


def test_crops_know_whether_they_lie_at_the_edge_of_the_frame():
    stage, queue = stage_of(map(frame_of, range(40)))
    stage._selector = CropSelector(CropSelectorSettings(mode="every"))
    stage.run()
    crops = [crop.details for crop in queue.take(1000, timeout_s=0).crops]
    assert {crop.at_edge for crop in crops} == {False}
    stage, queue = stage_of(map(frame_of, range(40)))
    stage._selector = CropSelector(CropSelectorSettings(mode="every"))
    stage._detector = lambda frame: Detections(walker(frame).boxes * [1, 0, 1, 1], walker(frame).scores)
    stage.run()
    crops = [crop.details for crop in queue.take(1000, timeout_s=0).crops]
    assert crops and {crop.at_edge for crop in crops} == {True}


def replace_scores(found, score):
    return Detections(found.boxes, np.full(len(found), score, np.float32))


def test_a_track_that_waits_to_be_judged_gets_the_right_times_when_the_clock_is_set():
    frames = [*map(frame_of, range(35)), *(frame_of(index, 3_600_000_000) for index in range(35, 40))]
    stage, queue = stage_of(frames)
    stage.run()
    [ended] = ended_in(queue)
    assert ended.correction_us == 3_600_000_000 and ended.failing == ""
