"""Measures what gets into the gallery: how many of the people, and how many tracklets are one whole person.

    python benchmarks/gallery_content.py BUNDLE VIDEO … --reference FOLDER [--config FILE.toml] [--sheets FOLDER]
        [--make-reference DETECTOR …]

Each video goes through the pipeline of ``reid-edge run``, with the tables of ``--config`` (``[detector]``, ``[person]``
…; without it the defaults, hence ``motion``), or the detector of ``--detector``.

FOLDER has the truth, a file ``VIDEO.json`` for each video: ``{"0": [[x1, y1, x2, y2], …], …}``, boxes of whole people
in pixels by the number of the frame; frames may be left out.  ``--make-reference`` writes the files that are missing,
with the boxes in which at least two of these detectors agree, each at the scores that suit it.  A detector that is
measured should not be among them.

* *published*: tracklets that are published; *whole*: those whose best crop overlaps a person of the truth, by an
  intersection over union of 0.5 or more; *withheld*: tracklets that are not published, by reason.
* *there*: tracks of the truth that last a second or more; *found*: those of which a published tracklet has a crop.
* *ms*: time of the detector and of the check for each frame, medians.

``--sheets`` writes the best crop of every published tracklet to one PNG a video, since the truth of detectors is not
the truth: look at them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.crop_selector import ChosenCrops
from reid_edge.camera.detectors import open_detector, scores_of
from reid_edge.camera.filters import DetectionFilter, ious
from reid_edge.camera.frames import Boxes, Detections, Frame
from reid_edge.camera.pipeline import Pipeline
from reid_edge.camera.review import listed
from reid_edge.camera.settings import AgentSettings, parse_settings, read_settings
from reid_edge.camera.sources import SourceSettings, open_source
from reid_edge.camera.tracking import TrackedBoxes, Tracker
from reid_edge.camera.tracklets import CropDetails
from reid_edge.camera.watcher import Use, Watcher
from reid_edge.cli.camera import detector_table
from reid_edge.crops import crop_boxes
from reid_edge.types import Image
from reid_edge.upstream.observation import Observation

#: Overlap from which two boxes show the same person.
SAME = 0.5
#: A frame of the truth stands for those within this time, seconds; frames of the truth are this many a second.
NEAR_S, TRUTH_FPS = 0.09, 8
CELL_WH = (90, 150)


class Truth:
    """Boxes of whole people by the number of the frame, and their tracks."""

    def __init__(self, path: Path, fps: float) -> None:
        boxes = {int(number): rows for number, rows in json.loads(path.read_text()).items()}
        self._fps = fps
        self._numbers = np.array(sorted(boxes))
        self._boxes: dict[int, Boxes] = {}
        self._tracks: dict[int, list[int]] = {}
        tracker, seen = Tracker(), defaultdict(list)
        for number in self._numbers.tolist():
            table = np.array([row[:4] for row in boxes[number]], np.float32).reshape(-1, 4)
            tracked = tracker.update(Detections(table, np.ones(len(table), np.float32)), 1 + round(number / fps * 1e6))
            self._boxes[number], self._tracks[number] = tracked.boxes, tracked.tracks.tolist()
            for track in self._tracks[number]:
                seen[track].append(number)
        self.there = {track for track, numbers in seen.items() if (numbers[-1] - numbers[0]) / fps >= 1}

    def people_at(self, number: int, box: Boxes) -> list[int]:
        """Return the tracks of the people whom a box shows."""
        nearest = int(self._numbers[np.abs(self._numbers - number).argmin()])
        if abs(nearest - number) / self._fps > NEAR_S or not len(self._boxes[nearest]):
            return []
        overlaps = ious(box[None], self._boxes[nearest])[0]
        return [self._tracks[nearest][row] for row in np.flatnonzero(overlaps >= SAME)]


def rate_of(video: Path) -> float:
    return float(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)) or 25.0


def make_reference(video: Path, path: Path, names: list[str]) -> None:
    """Write the boxes in which at least two detectors agree."""
    settings = [settings_of(video, "none", None, name) for name in names]
    detectors = [open_detector(each.detector) for each in settings]
    filters = [
        DetectionFilter(each.filter, confidence=scores_of(detector).confidence)
        for each, detector in zip(settings, detectors, strict=True)
    ]
    stride = max(1, round(rate_of(video) / TRUTH_FPS))
    table = {}
    with open_source(SourceSettings(uri=str(video), stride=stride)) as source:
        for frame in source:
            found = [keep(find(frame), frame).boxes for find, keep in zip(detectors, filters, strict=True)]
            table[frame.index] = agreed(found).tolist()
    path.write_text(json.dumps(table))


def agreed(found: list[Boxes]) -> npt.NDArray[np.float32]:
    """Return the boxes that overlap one of another detector, once each: means of those that agree."""
    people: list[npt.NDArray[np.float32]] = []
    for first, boxes in enumerate(found):
        for box in boxes:
            others = [other[ious(box[None], other)[0].argmax()] for other in found[first + 1 :] if len(other)]
            same = [box, *(other for other in others if ious(box[None], other[None])[0, 0] >= SAME)]
            mean = np.mean(same, axis=0, dtype=np.float32)
            if len(same) > 1 and not (people and ious(mean[None], np.stack(people)).max() >= SAME):
                people.append(mean)
    return np.array(people, np.float32).reshape(-1, 4)


def settings_of(video: Path, bundle: str, config: Path | None, detector: str | None) -> AgentSettings:
    tables = {} if config is None else read_settings(config)
    if detector:
        tables["detector"] = detector_table(detector)
    tables |= {"source": {"uri": str(video)}, "engine": {"bundle": bundle}}
    return parse_settings(tables)


@dataclass
class Shown:
    """A crop that was chosen."""

    number: int
    box: Boxes
    picture: Image


class Gathering(Watcher):
    """Keeps the chosen crops of each track, and the last observation of each tracklet."""

    def __init__(self) -> None:
        self.crops: dict[tuple[int, int], Shown] = {}
        self.used_by: dict[int, list[Shown]] = defaultdict(list)
        self.final: dict[int, tuple[int, Observation]] = {}

    def saw(self, frame: Frame, tracked: TrackedBoxes, _quality: npt.NDArray[np.float32], chosen: ChosenCrops) -> None:
        for row in chosen.rows.tolist():
            [picture], _ = crop_boxes(frame.image, tracked.boxes[row : row + 1])
            shown = Shown(frame.index, tracked.boxes[row].copy(), picture.copy())
            self.crops[int(tracked.tracks[row]), frame.captured_us] = shown

    def used(self, crop: CropDetails, use: Use) -> None:
        if use in ("averaged", "split"):
            self.used_by[crop.track].append(self.crops[crop.track, crop.captured_us])

    def published(self, track: int, observation: Observation) -> None:
        self.final[observation.track] = track, observation


class Nobody:
    """Takes observations and lets go of them."""

    def publish(self, observations: Iterable[Observation]) -> None:
        pass

    def flush(self) -> None:
        pass


class Timed:
    """Measures the time of each call."""

    def __init__(self, call: object) -> None:
        self._call = call
        self.ms: list[float] = []

    def __call__(self, *args: object) -> object:
        began = time.perf_counter()
        result = self._call(*args)  # type: ignore[operator]
        self.ms.append((time.perf_counter() - began) * 1e3)
        return result

    def median(self) -> float:
        return float(np.median(self.ms)) if self.ms else 0.0


def measure(video: Path, truth: Truth, settings: AgentSettings, sheet: Path | None) -> str:
    """Run everything between the camera and the outbox over a video, and return a row of the table."""
    seen = Gathering()
    with contextlib.ExitStack() as closing:
        pipeline = Pipeline(settings, Nobody(), closing, watcher=seen)
        detect, check = Timed(pipeline.detector), Timed(pipeline.person_check.update)
        pipeline.detection._detector = detect  # type: ignore[assignment]
        pipeline.person_check.update = check  # type: ignore[assignment,method-assign]
        embedding = threading.Thread(target=pipeline.embedding.run)
        embedding.start()
        pipeline.detection.run()
        embedding.join()
    found: set[int] = set()
    cells, whole = [], 0
    for track, observation in seen.final.values():
        best = seen.crops[track, observation.captured_us]
        is_whole = bool(truth.people_at(best.number, best.box))
        whole += is_whole
        cells.append(cell(best.picture, is_whole))
        for crop in seen.used_by[track]:
            found.update(truth.people_at(crop.number, crop.box))
    if sheet and cells:
        cv2.imwrite(str(sheet), np.vstack(rows_of(cells)))
    held = listed(dict(pipeline.tracklets.withheld)) or "none"
    depth = "; out of its depth" if pipeline.person_check.out_of_depth else ""
    people, tracklets = f"{len(found & truth.there)} / {len(truth.there)}", f"{whole} / {len(seen.final)}"
    return f"| {video.name} | {people} | {tracklets} | {held}{depth} | {detect.median():.1f} + {check.median():.2f} |"


def cell(crop: Image, whole: bool) -> Image:
    """A crop on a ground of one size, with a bar: green if the truth says that it is a person, else red."""
    picture = np.full((CELL_WH[1] + 6, CELL_WH[0], 3), 60, np.uint8)
    picture[:4] = (0, 200, 0) if whole else (0, 0, 255)
    factor = min(CELL_WH[0] / crop.shape[1], CELL_WH[1] / crop.shape[0])
    small = cv2.resize(crop, None, fx=factor, fy=factor)[: CELL_WH[1], : CELL_WH[0]]
    picture[6 : 6 + small.shape[0], : small.shape[1]] = small
    return picture


def rows_of(cells: list[Image], columns: int = 14) -> list[Image]:
    cells = cells + [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return [np.hstack(cells[first : first + columns]) for first in range(0, len(cells), columns)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--reference", type=Path, required=True, help="folder of the truth")
    parser.add_argument("--make-reference", nargs="+", help="detectors that make what is missing there")
    parser.add_argument("--detector", help="as of 'reid-edge run'")
    parser.add_argument("--config", type=Path, help="settings to measure")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of the published crops")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    print("| video | found / there | whole / published | withheld | ms |\n|---|---|---|---|---|")
    for video in given.videos:
        path = given.reference / f"{video.name}.json"
        if not path.exists() and given.make_reference:
            make_reference(video, path, given.make_reference)
        settings = settings_of(video, given.bundle, given.config, given.detector)
        sheet = given.sheets / f"{video.name}.png" if given.sheets else None
        print(measure(video, Truth(path, rate_of(video)), settings, sheet), flush=True)


if __name__ == "__main__":
    main()
