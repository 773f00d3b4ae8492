"""The part of a camera from its source to its observations: what the agent and the preview have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from reid_edge.camera.crop_queue import CropQueue
from reid_edge.camera.crop_selector import CropSelector
from reid_edge.camera.detection_stage import DetectionStage, OffSwitch
from reid_edge.camera.detectors import MotionSettings, open_detector, scores_of
from reid_edge.camera.embedding_stage import EmbeddingStage, Publishes, load_model
from reid_edge.camera.filters import DetectionFilter
from reid_edge.camera.person_check import PersonCheck
from reid_edge.camera.settings import AgentSettings
from reid_edge.camera.sources import open_source
from reid_edge.camera.tracking import Tracker
from reid_edge.camera.tracklets import Tracklets
from reid_edge.camera.watcher import Watcher


class Pipeline:
    """Source, detection stage, crop queue and embedding stage; runs nothing by itself but the capture.

    Args:
        settings: All settings of the camera; those of its upstream and its operation are not used.
        publisher: Takes the observations.
        closing: Gets the callbacks that close the parts.
        first_tracklet: Number of the first tracklet.
        before_each_part: Called before each part is opened; what it raises ends the start.
        watcher: Is told what the stages do.

    Attributes:
        detector: Finds people.
        source: Gives the frames.
        filter: Drops useless boxes, and blacks out the masks.
        off_switch: Tells whether the camera is switched off.
        crop_queue: Between the two stages.
        person_check: Tells tracks of people from others.
        tracklets: Averages features, and decides when to publish.
        embedding: Second stage.
        detection: First stage.

    Raises:
        ReidEdgeError: A part cannot be opened.
    """

    def __init__(
        self,
        settings: AgentSettings,
        publisher: Publishes,
        closing: contextlib.ExitStack,
        *,
        first_tracklet: int = 1,
        before_each_part: Callable[[], None] = lambda: None,
        watcher: Watcher | None = None,
    ) -> None:
        before_each_part()
        model = load_model(settings.engine)
        before_each_part()
        self.detector = open_detector(settings.detector)
        closing.callback(self.detector.close)
        before_each_part()
        self.source = closing.enter_context(open_source(settings.source))
        scores = scores_of(self.detector)
        self.filter = DetectionFilter(settings.filter, confidence=scores.confidence)
        self.off_switch = OffSwitch(settings.camera.off_switch)
        latency_s = settings.pipeline.max_latency_ms / 1000
        self.crop_queue = CropQueue(
            limit=settings.pipeline.max_waiting_crops, drop_oldest=self.source.live, budget_s=latency_s
        )
        self.tracklets = Tracklets(
            settings.tracklet,
            model_hash=model.bundle.manifest.model_hash,
            first_tracklet=first_tracklet,
            watcher=watcher,
        )
        self.embedding = EmbeddingStage(
            self.crop_queue,
            model,
            publisher,
            self.tracklets,
            max_batch=settings.engine.max_batch,
            max_latency_s=latency_s,
        )
        tracker = Tracker(settings.tracker, start=scores.start)
        self.person_check = PersonCheck(
            settings.person,
            high_confidence=tracker.high_confidence,
            by_motion=isinstance(settings.detector, MotionSettings),
        )
        self.detection = DetectionStage(
            self.source,
            self.detector,
            self.filter,
            tracker,
            self.person_check,
            CropSelector(settings.gate),
            self.crop_queue,
            is_off=self.off_switch,
            extractor=lambda: self.embedding.extractor,
            watcher=watcher,
        )
