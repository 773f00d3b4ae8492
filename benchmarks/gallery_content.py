"""Measures what gets into the gallery: how many of the people, and how many tracklets are one whole person.

    python benchmarks/gallery_content.py VIDEO … --reference FOLDER [--config FILE.toml] [--bundle FOLDER]
        [--sheets FOLDER] [--make-reference FILE.toml]

Each video goes through detection, filter, tracker, check and tracklets as in ``reid-edge run``, with the tables of
``--config`` (``[detector]``, ``[person]`` …; without it the defaults, hence ``motion``).  Without a bundle every crop
has the same feature, so that no track is split.

FOLDER has the truth, a file ``VIDEO.json`` for each video: ``{"0": [[x1, y1, x2, y2, score], …], …}``, boxes of whole
people in pixels by the number of the frame; frames may be left out.  ``--make-reference FILE.toml`` writes the files
that are missing with another, better detector, its ``[detector]`` and ``[filter]``.

* *published*: tracklets that would be published; *whole*: those whose best crop overlaps a person of the truth, by an
  intersection over union of 0.5 or more; *withheld*: tracklets that are not published, by reason.
* *there*: tracks of the truth that last a second or more; *found*: those of which a published tracklet has a crop.

``--sheets`` writes the best crop of every published tracklet to one PNG a video, since the truth of a detector is not
the truth: look at them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np

from reid_edge.camera.crop_selector import CropSelector, crop_quality
from reid_edge.camera.detectors import MotionSettings, open_detector, scores_of
from reid_edge.camera.filters import DetectionFilter, FilterSettings, ious
from reid_edge.camera.frames import Boxes, Detections, Frame
from reid_edge.camera.person_check import PersonCheck, PersonSettings
from reid_edge.camera.settings import AgentSettings, parse_settings, read_settings
from reid_edge.camera.sources import SourceSettings, open_source
from reid_edge.camera.tracking import Tracker
from reid_edge.camera.tracklets import CropDetails, Tracklets
from reid_edge.crops import crop_boxes
from reid_edge.runtime.extractor import Extractor
from reid_edge.upstream.observation import Observation

#: Overlap from which two boxes show the same person.
SAME = 0.5
#: A frame of the truth stands for those within this time, seconds.
NEAR_S = 0.06
START_US = 1_767_225_600_000_000
CELL_WH = (90, 150)


@dataclass
class Content:
    """What a run over one video gave."""

    there: int = 0
    found: int = 0
    published: int = 0
    whole: int = 0
    withheld: dict[str, int] = field(default_factory=dict)
    out_of_depth: bool = False
    ms: float = 0.0

    def row(self, name: str) -> str:
        held = ", ".join(f"{count} {reason}" for reason, count in sorted(self.withheld.items())) or "none"
        depth = "; out of its depth" if self.out_of_depth else ""
        people, whole = f"{self.found} / {self.there}", f"{self.whole} / {self.published}"
        return f"| {name} | {people} | {whole} | {held}{depth} | {self.ms:.1f} |"


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
            table = np.array(boxes[number], np.float32).reshape(-1, 5)
            tracked = tracker.update(Detections(table[:, :4], np.ones(len(table), np.float32)), time_us(number, fps))
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


def time_us(number: int, fps: float) -> int:
    return START_US + round(number / fps * 1e6)


def rate_of(video: Path) -> float:
    return float(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)) or 25.0


def make_reference(video: Path, path: Path, config: Path) -> None:
    """Write the truth that a better detector gives."""
    tables = read_settings(config)
    detector = open_detector(settings_of(config, video).detector)
    boxes = DetectionFilter(msgspec.convert(tables.get("filter", {}), FilterSettings))
    stride = max(1, round(rate_of(video) / 12))
    with open_source(SourceSettings(uri=str(video), stride=stride)) as source:
        found = {frame.index: boxes(detector(frame), frame) for frame in source}
    table = {
        number: [[*box, score] for box, score in zip(kept.boxes.tolist(), kept.scores.tolist(), strict=True)]
        for number, kept in found.items()
    }
    path.write_text(json.dumps(table))


def settings_of(config: Path | None, video: Path) -> AgentSettings:
    tables = {} if config is None else read_settings(config)
    tables |= {"source": {"uri": str(video)}, "engine": {"bundle": "unused"}}
    return parse_settings(tables)


def measure(video: Path, truth: Truth, config: Path | None, extractor: Extractor | None, sheet: Path | None) -> Content:
    """Run everything between the camera and the outbox over a video, in one thread."""
    settings = settings_of(config, video)
    fps = rate_of(video)
    detector = open_detector(settings.detector)
    scores = scores_of(detector)
    boxes = DetectionFilter(settings.filter, confidence=scores.confidence)
    tracker = Tracker(settings.tracker, start=scores.start)
    by_motion = isinstance(settings.detector, MotionSettings)
    person: PersonSettings = settings.person
    check = PersonCheck(person, high_confidence=tracker.high_confidence, by_motion=by_motion)
    selector, tracklets = CropSelector(settings.gate), Tracklets(settings.tracklet, model_hash="none")
    final: list[Observation] = []
    crops: dict[tuple[int, tuple[float, ...]], tuple[int, Boxes, np.ndarray]] = {}
    spent_s, frames = 0.0, 0

    def publish(observations: list[Observation]) -> None:
        final.extend(each for each in observations if each.final)

    shown: dict[int, list[tuple[int, Boxes]]] = defaultdict(list)
    with open_source(SourceSettings(uri=str(video))) as source:
        for frame in source:
            captured_us, (height, width) = time_us(frame.index, fps), frame.image.shape[:2]
            frame = Frame(frame.image, captured_us, frame.index)
            began = time.perf_counter()
            tracked = tracker.update(boxes(detector(frame), frame), captured_us)
            check.update(tracked, captured_us, (width, height))
            quality = crop_quality(tracked.boxes, width=width, height=height)
            strong = check.strong(tracked.scores)
            tracked, quality = tracked.take(strong), quality[strong]
            rows = selector.select(tracked, quality, captured_us).rows
            ended = check.end(tracked.ended)
            spent_s += time.perf_counter() - began
            frames += 1
            pixels, _ = crop_boxes(frame.image, tracked.boxes[rows]) if len(rows) else ([], None)
            features = extractor(list(pixels)) if extractor and len(rows) else np.ones((len(rows), 1), np.float32)
            for row, crop, feature in zip(rows.tolist(), pixels, features, strict=True):
                box, track = tracked.boxes[row], int(tracked.tracks[row])
                fractions = tuple((box / np.array([width, height] * 2, np.float32)).tolist())
                details = CropDetails(
                    track, captured_us, fractions, float(tracked.scores[row]), float(quality[row]), check.failing(track)
                )
                shown[track].append((frame.index, box))
                crops[captured_us, fractions] = track, box, crop.copy() if sheet else crop[:0]
                publish(tracklets.add(details, feature))
            publish(tracklets.end(ended))
    publish(tracklets.end(check.end(tracker.finish())))
    content = Content(len(truth.there), withheld=dict(tracklets.withheld), out_of_depth=check.out_of_depth)
    content.ms = spent_s / max(1, frames) * 1e3
    found: set[int] = set()
    cells = []
    for each in final:
        track, box, crop = crops[each.captured_us, each.box]
        number = round((each.captured_us - START_US) * fps / 1e6)
        whole = bool(truth.people_at(number, box))
        content.published, content.whole = content.published + 1, content.whole + whole
        for index, other in shown[track]:
            found.update(truth.people_at(index, other))
        cells.append(cell(crop, whole)) if sheet else None
    content.found = len(found & truth.there)
    if sheet and cells:
        cv2.imwrite(str(sheet), np.vstack(rows_of(cells)))
    return content


def cell(crop: np.ndarray, whole: bool) -> np.ndarray:
    """A crop on a ground of one size, with a bar: green if the truth says that it is a person, else red."""
    picture = np.full((CELL_WH[1] + 6, CELL_WH[0], 3), 60, np.uint8)
    picture[:4] = (0, 200, 0) if whole else (0, 0, 255)
    factor = min(CELL_WH[0] / crop.shape[1], CELL_WH[1] / crop.shape[0])
    small = cv2.resize(crop, None, fx=factor, fy=factor)[: CELL_WH[1], : CELL_WH[0]]
    picture[6 : 6 + small.shape[0], : small.shape[1]] = small
    return picture


def rows_of(cells: list[np.ndarray], columns: int = 14) -> list[np.ndarray]:
    cells = cells + [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return [np.hstack(cells[first : first + columns]) for first in range(0, len(cells), columns)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--reference", type=Path, required=True, help="folder of the truth")
    parser.add_argument("--make-reference", type=Path, help="settings of the detector that makes what is missing there")
    parser.add_argument("--config", type=Path, help="settings to measure")
    parser.add_argument("--bundle", type=Path, help="makes the features that split tracks")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of the published crops")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    extractor = Extractor(given.bundle) if given.bundle else None
    print(
        "| video | people found / there | whole people / published | withheld | ms per frame |\n|---|---|---|---|---|"
    )
    for video in given.videos:
        path = given.reference / f"{video.name}.json"
        if not path.exists() and given.make_reference:
            make_reference(video, path, given.make_reference)
        sheet = given.sheets / f"{video.name}.png" if given.sheets else None
        print(measure(video, Truth(path, rate_of(video)), given.config, extractor, sheet).row(video.name), flush=True)


if __name__ == "__main__":
    main()
