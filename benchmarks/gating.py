"""Measures the embeddings and bytes that tracking and gating save, and their cost in ranking quality.

    REID_EDGE_DATA=FOLDER python benchmarks/gating.py BUNDLE [--bundle BUNDLE …] [--only SECTION …]

FOLDER holds labelled data, none of which can be given away with this repository (``gating.md`` says where it is from):

    mot/NAME/gt.txt              MOTChallenge labels: frame, identity, left, top, width, height, considered, …
    mot/NAME/det.txt             detections, same columns with a score in the seventh
    mot/NAME/video.avi           or img1/000001.jpg …; without pictures a sequence only serves the section ``tracking``
    mot/NAME/seqinfo.ini         frameRate; 10 where there is none
    market1501/bounding_box_train/*.jpg

Sections: ``tracking`` (purity by setting and frame rate), ``quality`` (what each degradation of a crop costs, and
whether crop_quality finds the better crops of a track), ``gating`` (video), ``publishing`` (when to publish),
``splitting`` (when a track becomes another tracklet), ``cameras`` (tracklets across the cameras of Market-1501; give a
bundle whose network was not trained on it, as for the second half of ``splitting``).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from msgspec.structs import replace as replaced

from reid_edge.camera.advised_scores import AdvisedScores
from reid_edge.camera.crop_selector import (
    VISIBLE,
    CropSelector,
    CropSelectorSettings,
    aspect_term,
    crop_quality,
    edge_term,
    height_term,
    visible_term,
)
from reid_edge.camera.frames import Detections
from reid_edge.camera.tracking import TrackedBoxes, Tracker, TrackerSettings
from reid_edge.camera.tracklets import CropDetails, Tracklets, TrackletSettings
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import Ranking, rank
from reid_edge.runtime.extractor import Extractor
from reid_edge.upstream.message import encode_observation
from reid_edge.upstream.observation import Observation

NEVER = 1e9
UNSPLIT = TrackletSettings(split_cosine=-1)  # gates and times of publication are compared on the same tracklets
PLAIN = CropSelectorSettings(better_by=NEVER, min_quality=0, patience_s=0)
WAITING = CropSelectorSettings(better_by=NEVER)
GATES = {
    "every frame": CropSelectorSettings(mode="every"),
    "first only": CropSelectorSettings(mode="first", min_quality=0, patience_s=0),
    "first good": CropSelectorSettings(mode="first"),
    **{f"every {every:g} s": replaced(PLAIN, interval_s=every) for every in (0.5, 1, 2, 5)},
    **{f"every {every:g} s, the first good": replaced(WAITING, interval_s=every) for every in (0.5, 1, 2, 5)},
    **{
        f"every {every:g} s, the first good, and better ones": CropSelectorSettings(interval_s=every)
        for every in (0.5, 1, 2, 5)
    },
    "default": CropSelectorSettings(),
}


# --- data


@dataclass
class Sequence:
    """Boxes by frame; labels by frame: identity and box; pictures if there are any."""

    name: str
    fps: float
    size: tuple[int, int]
    detections: dict[int, Detections]
    labels: dict[int, tuple[np.ndarray, np.ndarray]]
    folder: Path

    def pictures(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number, from 1, and picture of each frame."""
        video = next(self.folder.glob("video.*"), None)
        if video is None:
            for path in sorted(self.folder.glob("img1/*.jpg")):
                yield int(path.stem), cv2.imread(str(path))
            return
        capture = cv2.VideoCapture(str(video))
        number = 0
        while (read := capture.read())[0]:
            number += 1
            yield number, read[1]

    @property
    def has_pictures(self) -> bool:
        """True where the sequence has pictures besides boxes."""
        return any(self.folder.glob("video.*")) or any(self.folder.glob("img1/*.jpg"))


def rows_by_frame(path: Path) -> dict[int, np.ndarray]:
    rows = np.loadtxt(path, delimiter=",", ndmin=2)
    rows[:, 4:6] += rows[:, 2:4]
    return {int(frame): rows[rows[:, 0] == frame] for frame in np.unique(rows[:, 0])}


def considered(rows: np.ndarray) -> np.ndarray:
    """Pedestrians; MOT17 has the class in the eighth column."""
    return (rows[:, 6] == 1) & ((rows[:, 7] == 1) if rows.shape[1] == 9 else True)


def load_sequences(root: Path) -> list[Sequence]:
    return [load_sequence(path.parent) for path in sorted(root.glob("mot/*/gt.txt"))]


def load_sequence(folder: Path) -> Sequence:
    labelled = rows_by_frame(folder / "gt.txt")
    labels = {}
    for frame, rows in labelled.items():
        kept = rows[considered(rows)]
        labels[frame] = (kept[:, 1].astype(int), kept[:, 2:6].astype(np.float32))
    info = (folder / "seqinfo.ini").read_text() if (folder / "seqinfo.ini").exists() else ""
    if (folder / "det.txt").exists():
        found = {
            frame: Detections(rows[:, 2:6].astype(np.float32), rows[:, 6].astype(np.float32))
            for frame, rows in rows_by_frame(folder / "det.txt").items()
        }
    else:
        found = simulated_detections(labelled)
    match = re.search(r"frameRate=(\d+)", info)
    size = (
        (int(re.search(r"imWidth=(\d+)", info)[1]), int(re.search(r"imHeight=(\d+)", info)[1])) if info else (768, 576)
    )
    return Sequence(folder.name, float(match[1]) if match else 10.0, size, found, labels, folder)


def simulated_detections(labelled: dict[int, np.ndarray]) -> dict[int, Detections]:
    """A detector that misses hidden people, is off by 4 % of the size, and scores by visibility."""
    rng = np.random.default_rng(0)
    found = {}
    for frame, rows in labelled.items():
        rows = rows[considered(rows)]
        visible = rows[:, 8]
        kept = rng.uniform(size=len(rows)) < 0.25 + 0.72 * np.clip(visible / 0.6, 0, 1)
        boxes, visible = rows[kept, 2:6].copy(), visible[kept]
        boxes += rng.normal(0, 0.04, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        scores = np.clip(0.35 + 0.6 * visible + rng.normal(0, 0.12, len(boxes)), 0.1, 0.99)
        found[frame] = Detections(boxes.astype(np.float32), scores.astype(np.float32))
    return found


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def identities(sequence: Sequence, frame: int, boxes: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Label of each box, best overlap first, each label once; 0 for none."""
    found = np.zeros(len(boxes), int)
    if frame not in sequence.labels or not len(boxes):
        return found
    labels, labelled = sequence.labels[frame]
    overlap = overlaps(boxes, labelled)
    while overlap.size and overlap.max() >= least:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        found[row] = labels[column]
        overlap[row], overlap[:, column] = 0, 0
    return found


def time_us(sequence: Sequence, frame: int) -> int:
    return round(1e6 * frame / sequence.fps)


# --- tracking


class Roboflow:
    """ByteTrack of the package ``trackers``, for comparison, with thresholds like ours; ``pip install trackers``."""

    def __init__(self, config: TrackerSettings, rate: float) -> None:
        from trackers import ByteTrackTracker

        self.tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * config.lifespan_s),
            frame_rate=rate,
            track_activation_threshold=config.high_confidence or AdvisedScores().start,
            high_conf_det_threshold=config.high_confidence or AdvisedScores().start,
            minimum_iou_threshold=config.min_iou,
            minimum_consecutive_frames=1,
        )

    def update(self, detections: Detections, _: int) -> TrackedBoxes:
        """Track detections as the camera's tracker does."""
        import supervision

        classes = np.zeros(len(detections.scores), int)
        found = self.tracker.update(
            supervision.Detections(xyxy=detections.boxes.copy(), confidence=detections.scores.copy(), class_id=classes)
        )
        rows = np.flatnonzero(found.tracker_id >= 0) if len(found) else np.zeros(0, int)
        tracks = found.tracker_id[rows] if len(found) else rows
        return TrackedBoxes(found.xyxy[rows], np.ones(len(rows), np.float32), tracks.astype(np.int64), ())


def track_statistics(
    sequence: Sequence, config: TrackerSettings, stride: int, *, roboflow: bool = False
) -> Counter[str]:
    tracker = Roboflow(config, sequence.fps / stride) if roboflow else Tracker(config)
    owners, last = defaultdict(Counter), {}
    totals: Counter[str] = Counter()
    nothing = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    for frame in range(1, max(sequence.detections) + 1, stride):
        tracked = tracker.update(sequence.detections.get(frame, nothing), time_us(sequence, frame))
        for track, who in zip(tracked.tracks, identities(sequence, frame, tracked.boxes), strict=True):
            if who:
                owners[int(track)][who] += 1
                totals["switches"] += last.get(who, track) != track
                last[who] = track
    totals["boxes"] = sum(sum(owner.values()) for owner in owners.values())
    totals["pure"] = sum(max(owner.values()) for owner in owners.values())
    totals["tracks"], totals["people"] = len(owners), len(last)
    return totals


def tracking(sequences: list[Sequence]) -> None:
    table("tracking", "setting", "data", "frames/s", "purity, %", "switches", "tracks per person")
    default = TrackerSettings()
    settings = {"default": default}
    for key, values in {
        "min_iou": (0.1, 0.2, 0.3, 0.4),
        "high_confidence": (0.4, 0.5, 0.7),
        "lifespan_s": (0.5, 1.5, 3.0),
    }.items():
        settings |= {f"{key} {value}": replaced(default, **{key: value}) for value in values}
    groups: dict[str, list[Sequence]] = defaultdict(list)
    for sequence in sequences:
        groups[sequence.name.split("-")[0]].append(sequence)
    if importlib.util.find_spec("trackers"):
        settings |= {f"trackers, min_iou {iou}": replaced(default, min_iou=iou) for iou in (0.1, 0.2, 0.25, 0.3)}
    for name, config in settings.items():
        for group, members in groups.items():
            for rate in (30, 10, 5):
                strides = [max(1, round(member.fps / rate)) for member in members]
                theirs = name.startswith("trackers")
                runs = zip(members, strides, strict=True)
                totals = sum(
                    (track_statistics(member, config, stride, roboflow=theirs) for member, stride in runs), Counter()
                )
                cells = (
                    100 * totals["pure"] / totals["boxes"],
                    totals["switches"],
                    totals["tracks"] / totals["people"],
                )
                print(f"| {name} | {group} | ≤{rate} | {cells[0]:.1f} | {cells[1]} | {cells[2]:.2f} |", flush=True)


# --- quality


def degradations(others: list[np.ndarray]) -> dict[str, Callable[[int, np.ndarray], np.ndarray]]:
    def hidden(index: int, crop: np.ndarray, visible: float, side: bool) -> np.ndarray:
        crop, other = crop.copy(), cv2.resize(others[index % len(others)], crop.shape[1::-1])
        height, width = crop.shape[:2]
        if side:
            columns = round(width * (1 - visible))
            crop[:, width - columns :] = other[:, width // 4 : width // 4 + columns]
        else:
            rows = round(height * (1 - visible))
            crop[height - rows :] = other[:rows]
        return crop

    def narrowed(_: int, crop: np.ndarray, aspect: float) -> np.ndarray:
        height, width = crop.shape[:2]
        if aspect < width / height:
            cut = round((width - height * aspect) / 2)
            return crop[:, cut : width - cut]
        return crop[: round(width / aspect)]

    table: dict[str, Callable[[int, np.ndarray], np.ndarray]] = {"as it is": lambda _, crop: crop}
    for height in (96, 64, 48, 40, 32, 24, 16):
        table[f"height {height}"] = lambda _, crop, height=height: cv2.resize(
            crop, (height // 2, height), interpolation=cv2.INTER_AREA
        )
    for aspect in (0.25, 0.3, 0.35, 0.4, 0.6, 0.7, 1.0):
        table[f"aspect {aspect}, legs cut" if aspect > 0.5 else f"aspect {aspect}"] = (
            lambda index, crop, aspect=aspect: narrowed(index, crop, aspect)
        )
    for visible in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        for side in (True, False):
            table[f"visible {visible}, hidden {'aside' if side else 'below'}"] = (
                lambda index, crop, visible=visible, side=side: hidden(index, crop, visible, side)
            )
    for sigma in (1, 2, 3):
        table[f"blur {sigma}"] = lambda _, crop, sigma=sigma: cv2.GaussianBlur(crop, (0, 0), sigma)
    return table


def quality(extractor: Extractor, root: Path, embedded: list[Embedded]) -> None:
    images = [image for image in market_images(root) if int(image.name[:4]) >= 1285]
    views: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        views[image.name[:7]].append(image)
    queries = [paths[0] for paths in views.values()]
    gallery = [path for paths in views.values() for path in paths[1:]]
    crops = [cv2.imread(str(path)) for path in queries]
    others = [cv2.imread(str(path)) for path in gallery]
    known = market_labelled(extractor(others), gallery)
    shuffled = [others[index] for index in np.random.default_rng(0).permutation(len(others))]
    table("quality: queries degraded", "", "rank-1", "mAP", "mAP kept")
    whole = 0.0
    for name, degrade in degradations(shuffled).items():
        features = extractor([np.ascontiguousarray(degrade(index, crop)) for index, crop in enumerate(crops)])
        result = rank(market_labelled(features, queries), known)
        whole = whole or result.mean_ap
        print(f"| {name} | {100 * result.rank1:.1f} | {100 * result.mean_ap:.1f} | {result.mean_ap / whole:.2f} |")
    table(
        "quality: crops of a track, on video",
        "term", "Spearman within a track", "AP of the best fifth", "of all", "of the worst fifth",
    )  # fmt: skip
    for item in embedded:
        quality_on_video(item)


def quality_on_video(embedded: Embedded) -> None:
    """Average precision of each labelled crop as a query against those of other visits, by terms of its quality."""
    sequence = embedded.sequence
    frames, who, terms, features = [], [], [], []
    for frame, (detections, found) in embedded.frames.items():
        boxes, area = detections.boxes, (0, 0, *sequence.size)
        sizes = boxes[:, 2:] - boxes[:, :2]
        columns = (
            crop_quality(boxes, area=area), height_term(sizes), aspect_term(sizes),
            edge_term(boxes, area), visible_term(boxes), detections.scores, embedded.sharpness[frame],
        )  # fmt: skip
        for row, label in enumerate(identities(sequence, frame, boxes, 0.8)):
            if label:
                frames.append(frame)
                who.append(label)
                terms.append([column[row] for column in columns])
                features.append(found[row])
    people, values, vectors = np.array(who), np.array(terms), np.array(features)
    visits = visit_numbers(np.array(frames), people, gap=2 * sequence.fps)
    precision = average_precisions(vectors, people, visits)
    tie_break = 1e-9 * np.random.default_rng(0).normal(size=len(people))
    for column, name in enumerate(("crop_quality", "height", "aspect", "edge", "visible", "score", "sharpness")):
        correlations, counts, fifths = [], [], []
        for visit in np.unique(visits):
            rows = np.flatnonzero((visits == visit) & np.isfinite(precision))
            if len(rows) < 15:
                continue
            order = np.argsort(values[rows, column] + tie_break[rows])
            fifth = max(1, len(rows) // 5)
            fifths.append([precision[rows[part]].mean() for part in (order[-fifth:], order, order[:fifth])])
            if values[rows, column].std() > 1e-6:
                correlations.append(spearman(values[rows, column] + tie_break[rows], precision[rows]))
                counts.append(len(rows))
        cells = [f"{value:.3f}" for value in np.mean(fifths, axis=0)]
        print(f"| {name} | {np.average(correlations, weights=counts):+.3f} | {' | '.join(cells)} |")


def visit_numbers(frames: np.ndarray, people: np.ndarray, *, gap: float) -> np.ndarray:
    visits, number = np.zeros(len(frames), int), 0
    for person in np.unique(people):
        last = -np.inf
        for row in sorted(np.flatnonzero(people == person), key=lambda row: frames[row]):
            number += frames[row] - last > gap
            visits[row], last = number, frames[row]
    return visits


def average_precisions(features: np.ndarray, people: np.ndarray, visits: np.ndarray) -> np.ndarray:
    similar = features @ features.T
    precision = np.full(len(people), np.nan)
    for row in range(len(people)):
        other = np.flatnonzero(visits != visits[row])
        hits = np.flatnonzero((people[other] == people[row])[np.argsort(-similar[row, other], kind="stable")])
        if len(hits):
            precision[row] = np.mean(np.arange(1, len(hits) + 1) / (hits + 1))
    return precision


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


# --- gating


@dataclass
class Embedded:
    """Every box of a sequence with its feature: gates are then compared without embedding again."""

    sequence: Sequence
    frames: dict[int, tuple[Detections, np.ndarray]]
    sharpness: dict[int, np.ndarray]


def embed(sequence: Sequence, extractor: Extractor) -> Embedded:
    frames, sharpness = {}, {}
    for number, picture in sequence.pictures():
        sequence.size = (picture.shape[1], picture.shape[0])
        if number in sequence.detections:
            extraction = extractor.extract(picture, sequence.detections[number].boxes)
            detections = sequence.detections[number].take(extraction.kept)
            frames[number] = (detections, extraction.features)
            sharpness[number] = np.array([sharp(picture, box) for box in detections.boxes])
    return Embedded(sequence, frames, sharpness)


def sharp(picture: np.ndarray, box: np.ndarray) -> float:
    left, top, right, bottom = np.maximum(box, 0).astype(int)
    grey = cv2.cvtColor(picture[top : bottom + 1, left : right + 1], cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(cv2.resize(grey, (32, 64), interpolation=cv2.INTER_AREA), cv2.CV_32F).var())


@dataclass
class Outcome:
    """The observations published, the crops embedded, and each tracklet's track and labels of its boxes."""

    published: list[Observation]
    crops: int
    boxes: int
    tracks: dict[int, int]
    votes: dict[int, Counter[int]]

    @property
    def owners(self) -> dict[int, int]:
        """The label of most boxes of each tracklet."""
        return {tracklet: vote.most_common(1)[0][0] for tracklet, vote in self.votes.items() if vote}


def replay(
    embedded: Embedded, tracker: TrackerSettings, selection: CropSelectorSettings, tracklets: TrackletSettings
) -> Outcome:
    tracking, selector = Tracker(tracker), CropSelector(selection)
    collecting = Tracklets(tracklets, model_hash="0" * 64)
    shown: dict[int, list[tuple[int, int]]] = defaultdict(list)
    published, tracks, crops, boxes = [], {}, 0, 0
    width, height = embedded.sequence.size

    def publish(track: int, observations: list[Observation]) -> None:
        published.extend(observations)
        tracks.update((seen.track, track) for seen in observations)

    for frame, (detections, features) in embedded.frames.items():
        now = time_us(embedded.sequence, frame)
        tracked = tracking.update(detections, now)
        rows = [int(np.flatnonzero((detections.boxes == box).all(1))[0]) for box in tracked.boxes]
        grades = crop_quality(detections.boxes, area=(0, 0, *embedded.sequence.size))[rows]
        for track, who in zip(tracked.tracks, identities(embedded.sequence, frame, tracked.boxes), strict=True):
            shown[int(track)].append((now, int(who)))
        boxes += len(tracked.tracks)
        for row in selector.select(tracked, grades, now).rows:
            box = tuple((tracked.boxes[row] / [width, height, width, height]).tolist())
            details = CropDetails(int(tracked.tracks[row]), now, box, float(tracked.scores[row]), float(grades[row]))
            publish(details.track, collecting.add(details, features[rows[row]]))
            crops += 1
        for ended in tracked.ended:
            publish(ended.track, collecting.end([ended]))
    for ended in tracking.finish():
        publish(ended.track, collecting.end([ended]))
    votes = {
        seen.track: Counter(who for at, who in shown[tracks[seen.track]] if who and seen.first_us <= at <= seen.last_us)
        for seen in published
        if seen.final
    }
    return Outcome(published, crops, boxes, tracks, votes)


def ranked(observations: list[Observation], owners: dict[int, int]) -> Ranking:
    """Each labelled tracklet searched among all others."""
    kept = [observation for observation in observations if observation.track in owners]
    features = np.array([observation.feature for observation in kept])
    people = np.array([owners[observation.track] for observation in kept])
    alone = Labelled(features, people, np.arange(len(kept)))  # a camera each: only itself is left out
    return rank(alone, alone)


#: The mean over several trackers takes out some of the luck with few tracklets.
TRACKERS = [TrackerSettings(min_iou=iou, lifespan_s=life) for iou in (0.2, 0.25, 0.3) for life in (1.0, 1.5, 2.0)]


def gating(embedded: list[Embedded]) -> None:
    table(
        "gating", "crops embedded", "tracklets", "embeddings per tracklet", "of all boxes, %", "bytes", "rank-1", "mAP"
    )
    final_only = replaced(UNSPLIT, early_s=math.inf, every_s=math.inf)
    rows = [(name, gate, final_only) for name, gate in GATES.items()]
    rows.append(("default, published by default", CropSelectorSettings(), UNSPLIT))
    for name, gate, publish in rows:
        results = [measures(replay(item, tracker, gate, publish)) for item in embedded for tracker in TRACKERS]
        tracklets, crops, share, size, rank1, mean_ap = np.mean(results, axis=0)
        print(
            f"| {name} | {tracklets:.0f} | {crops:.2f} | {100 * share:.1f} | {size:,.0f} "
            f"| {100 * rank1:.1f} | {100 * mean_ap:.1f} |",
            flush=True,
        )
    outcomes = [replay(item, tracker, CropSelectorSettings(), final_only) for item in embedded for tracker in TRACKERS]
    alone = [outcome.boxes * len(encode_observation(outcome.published[0])) for outcome in outcomes]
    print(f"\nEvery box published on its own: {np.mean(alone):,.0f} bytes.")


def measures(outcome: Outcome) -> list[float]:
    final = [observation for observation in outcome.published if observation.final]
    size = sum(len(encode_observation(observation)) for observation in outcome.published)
    result = ranked(final, outcome.owners)
    return [
        len(final), outcome.crops / len(final), outcome.crops / outcome.boxes, size, result.rank1, result.mean_ap,
    ]  # fmt: skip


def publishing(embedded: list[Embedded]) -> None:
    """Measure how soon and how well a tracklet can be found, by the time of its first publication."""
    table(
        "publishing", "first published", "published per tracklet", "bytes per tracklet", "seconds after first sight",
        "90 % within", "mAP of the first", "of the last",
    )  # fmt: skip
    settings = {
        "at the end": replaced(UNSPLIT, early_s=math.inf),
        **{f"after {early} s": replaced(UNSPLIT, early_s=early, every_s=math.inf) for early in (0, 1, 2, 3, 5)},
        **{f"after 3 s, then every {every} s": replaced(UNSPLIT, every_s=every) for every in (3, 10)},
        "default": UNSPLIT,
    }
    for name, config in settings.items():
        rows = []
        for item in embedded:
            for tracker in TRACKERS:
                outcome = replay(item, tracker, CropSelectorSettings(), config)
                first, last = {}, {}
                for seen in outcome.published:
                    first.setdefault(seen.track, seen)
                    last[seen.track] = seen
                waits = [(seen.last_us - seen.first_us) / 1e6 for seen in first.values()]
                rows.append([
                    len(outcome.published) / len(last),
                    sum(len(encode_observation(seen)) for seen in outcome.published) / len(last),
                    np.mean(waits), np.quantile(waits, 0.9),
                    ranked(list(first.values()), outcome.owners).mean_ap,
                    ranked(list(last.values()), outcome.owners).mean_ap,
                ])  # fmt: skip
        sent, size, mean, most, first_ap, last_ap = np.mean(rows, axis=0)
        quality_of = f"{100 * first_ap:.1f} | {100 * last_ap:.1f}"
        print(f"| {name} | {sent:.2f} | {size:.0f} | {mean:.1f} | {most:.1f} | {quality_of} |", flush=True)


# --- splitting

COSINES = (-1, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)


def splitting(embedded: list[Embedded]) -> None:
    """Measure a threshold on video: tracks of two people that it separates, and of one that it splits."""
    table(
        "splitting", "split_cosine", "tracklets", "purity, %", "mixed tracklets", "splits of one person", "rank-1",
        "mAP",
    )  # fmt: skip
    for cosine in COSINES:
        config = TrackletSettings(early_s=math.inf, every_s=math.inf, split_cosine=cosine)
        results = []
        for item in embedded:
            for tracker in TRACKERS:
                outcome = replay(item, tracker, CropSelectorSettings(), config)
                most = [max(vote.values()) for vote in outcome.votes.values() if vote]
                all_of = [vote.total() for vote in outcome.votes.values() if vote]
                mixed = sum(top < 0.9 * total for top, total in zip(most, all_of, strict=True))
                result = ranked(outcome.published, outcome.owners)
                results.append([
                    len(outcome.published), 100 * sum(most) / sum(all_of), mixed, split_for_nothing(outcome),
                    100 * result.rank1, 100 * result.mean_ap,
                ])  # fmt: skip
        count, *cells = np.mean(results, axis=0)
        print(f"| {cosine} | {count:.0f} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


def split_for_nothing(outcome: Outcome) -> int:
    """Tracklets of the same person as the one before them of the same track."""
    owners: dict[int, list[int]] = defaultdict(list)
    for seen in sorted(outcome.published, key=lambda seen: seen.first_us):
        if seen.track in outcome.owners:
            owners[outcome.tracks[seen.track]].append(outcome.owners[seen.track])
    return sum(one == other for people in owners.values() for one, other in pairwise(people))


def splitting_alone(features: np.ndarray, images: list[Path]) -> None:
    """The same for Market-1501: tracklets of 4 crops or more (fewer are never split), and 4 each of two people."""
    tracklets = [rows for rows in market_tracklets(images) if len(rows) >= 4]
    rng = np.random.default_rng(0)
    changing = []
    for rows in tracklets:
        same_camera = [other for other in tracklets if images[other[0]].name[5:7] == images[rows[0]].name[5:7]]
        following = same_camera[rng.integers(len(same_camera))]
        if images[following[0]].name[:4] != images[rows[0]].name[:4]:
            changing.append(rows[:4] + following[:4])
    table(
        f"splitting: {len(tracklets)} tracklets of one person, {len(changing)} that go over to another",
        "split_cosine", "of one, split, %", "of two, split, %",
    )  # fmt: skip
    for cosine in COSINES:
        shares = [100 * np.mean([parts(rows, features, cosine) > 1 for rows in runs]) for runs in (tracklets, changing)]
        print(f"| {cosine} | {shares[0]:.2f} | {shares[1]:.1f} |", flush=True)


def parts(rows: list[int], features: np.ndarray, cosine: float) -> int:
    """Count the tracklets that these crops make."""
    config = TrackletSettings(early_s=math.inf, every_s=math.inf, split_cosine=cosine)
    collecting = Tracklets(config, model_hash="0" * 64)
    for second, row in enumerate(rows):
        collecting.add(CropDetails(1, second * 1_000_000, (0, 0, 1, 1), 1.0, 1.0), features[row])
    return collecting.split + 1


# --- tracklets across cameras


def market_images(root: Path) -> list[Path]:
    return sorted((root / "market1501" / "bounding_box_train").glob("*_c*.jpg"))


def market_labelled(features: np.ndarray, images: list[Path]) -> Labelled:
    names = [image.name for image in images]
    return Labelled(features, np.array([int(name[:4]) for name in names]), np.array([int(name[6]) for name in names]))


def market_tracklets(images: list[Path]) -> list[list[int]]:
    """Rows of crops that one camera took of one person without a break of 5 s (25 frames a second)."""
    runs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, image in enumerate(images):
        runs[image.name[:9]].append((int(image.name[10:16]), row))
    tracklets = []
    for run in runs.values():
        last = -NEVER
        for frame, row in sorted(run):
            if frame - last > 125:
                tracklets.append([])
            if frame != last:  # some frames have several boxes of one person
                tracklets[-1].append(row)
            last = frame
    return tracklets


def cameras(features: np.ndarray, images: list[Path]) -> None:
    seconds = np.array([int(image.name[10:16]) / 25 for image in images])
    tracklets = market_tracklets(images)
    table(
        f"cameras: {len(tracklets)} tracklets of {len(images)} crops, about 1 a second",
        "tracklet feature", "embeddings per tracklet", "rank-1", "mAP", "rank-1 of 3 crops or more", "mAP",
    )  # fmt: skip
    rules: dict[str, Callable[[list[int]], list[int]]] = {
        "first crop": lambda rows: rows[:1],
        "middle crop": lambda rows: [rows[len(rows) // 2]],
        "mean of first 2": lambda rows: rows[:2],
        "mean of one every 5 s": lambda rows: spaced(rows, seconds, 5),
        "mean of one every 2 s": lambda rows: spaced(rows, seconds, 2),
        "mean of all": lambda rows: rows,
    }
    long = [len(rows) >= 3 for rows in tracklets]
    for name, chosen in rules.items():
        means = np.array([features[chosen(rows)].mean(0) for rows in tracklets])
        firsts = [images[rows[0]] for rows in tracklets]
        labelled = market_labelled(means, firsts)
        results = [rank(labelled, labelled), rank(subset(labelled, np.array(long)), labelled)]
        crops = np.mean([len(chosen(rows)) for rows in tracklets])
        cells = " | ".join(f"{100 * result.rank1:.1f} | {100 * result.mean_ap:.1f}" for result in results)
        print(f"| {name} | {crops:.2f} | {cells} |", flush=True)


def weighting(extractor: Extractor, root: Path) -> None:
    """Measure the gain of weights where crops differ: a third of them is half hidden by another person."""
    images = market_images(root)
    rng = np.random.default_rng(0)
    hidden, front = rng.uniform(size=len(images)) < 1 / 3, rng.permutation(len(images))

    def read(row: int) -> np.ndarray:
        crop = cv2.imread(str(images[row]))
        if hidden[row]:
            crop[64:] = cv2.imread(str(images[front[row]]))[:64]
        return crop

    features = embedded_rows(extractor, read, len(images))
    qualities = np.where(hidden, np.interp(0.5, *VISIBLE), 1.0)
    tracklets = [rows for rows in market_tracklets(images) if len(rows) >= 3]
    table(
        f"weights: {len(tracklets)} tracklets of 3 crops or more, a third of the crops half hidden",
        "tracklet feature", "rank-1", "mAP",
    )  # fmt: skip
    for name, weights in {
        "mean": np.ones(len(images)),
        "weighted by quality": qualities,
        "by its square": qualities**2,
    }.items():
        means = np.array([weights[rows] @ features[rows] for rows in tracklets])
        labelled = market_labelled(means, [images[rows[0]] for rows in tracklets])
        result = rank(labelled, labelled)
        print(f"| {name} | {100 * result.rank1:.1f} | {100 * result.mean_ap:.1f} |", flush=True)


def embedded_files(extractor: Extractor, images: list[Path]) -> np.ndarray:
    return embedded_rows(extractor, lambda row: cv2.imread(str(images[row])), len(images))


def embedded_rows(extractor: Extractor, read: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    starts = range(0, count, 256)
    return np.concatenate([extractor([read(row) for row in range(at, min(at + 256, count))]) for at in starts])


def subset(labelled: Labelled, rows: np.ndarray) -> Labelled:
    return Labelled(labelled.features[rows], labelled.identities[rows], labelled.cameras[rows])


def spaced(rows: list[int], seconds: np.ndarray, apart: float) -> list[int]:
    chosen = [rows[0]]
    for row in rows[1:]:
        if seconds[row] - seconds[chosen[-1]] >= apart:
            chosen.append(row)
    return chosen


def table(title: str, *columns: str) -> None:
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def main() -> None:
    sections = ("tracking", "quality", "gating", "publishing", "splitting", "cameras")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    arguments = parser.parse_args()
    root = Path(os.environ["REID_EDGE_DATA"])
    sequences = load_sequences(root)
    if "tracking" in arguments.only:
        tracking(sequences)
    for bundle in arguments.bundles:
        print(f"\n# {bundle.name}")
        extractor = Extractor(bundle, engine="openvino", precision="fp32", threads=2)
        embedded = []
        if set(arguments.only) & {"quality", "gating", "publishing", "splitting"}:
            embedded = [embed(sequence, extractor) for sequence in sequences if sequence.has_pictures]
        if "quality" in arguments.only:
            quality(extractor, root, embedded)
        if "gating" in arguments.only:
            gating(embedded)
        if "publishing" in arguments.only:
            publishing(embedded)
        if "splitting" in arguments.only:
            splitting(embedded)
        if set(arguments.only) & {"splitting", "cameras"}:
            images = market_images(root)
            features = embedded_files(extractor, images)
        if "splitting" in arguments.only:
            splitting_alone(features, images)
        if "cameras" in arguments.only:
            cameras(features, images)
            weighting(extractor, root)


if __name__ == "__main__":
    main()
