"""Run a camera's pipeline without publishing anything, and write what it saw."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reid_edge.camera.frames import Frame
from reid_edge.camera.pipeline import Pipeline
from reid_edge.camera.preview.drawing import drawn
from reid_edge.camera.preview.page import page
from reid_edge.camera.preview.recording import Limits, Recorder
from reid_edge.camera.preview.video import AnnotatedVideo
from reid_edge.camera.review import Counts, suspicions
from reid_edge.camera.settings import AgentSettings
from reid_edge.camera.tracking import TrackedBoxes
from reid_edge.errors import SourceError
from reid_edge.files import check_output, write_whole
from reid_edge.progress import Notify, silent
from reid_edge.upstream.observation import Observation

#: Length of a preview of a live source, seconds, if none is given.
LIVE_S = 60.0
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class PreviewOptions:
    """Outputs and length of a preview.

    Attributes:
        out: The page, a file that ends in ``.html``.
        video: Annotated video; None writes none.
        seconds: Length, seconds of the source's time; None: all of a file, a minute of a live source.
        force: Replace existing files.
        limits: Bounds of what the page shows.
    """

    out: Path
    video: Path | None = None
    seconds: float | None = None
    force: bool = False
    limits: Limits = DEFAULT_LIMITS


class _Nobody:
    """Takes observations and lets go of them."""

    def publish(self, observations: Iterable[Observation]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


def preview(settings: AgentSettings, options: PreviewOptions, notify: Notify = silent) -> Counts:
    """Run the pipeline of ``reid-edge run`` over a source, publish nothing, and write the page and the video.

    An interrupt ends it early, and the page shows what was seen so far.

    Args:
        settings: All settings of the camera; those of its upstream and its operation are not used.
        options: Outputs and length.
        notify: Shows progress.

    Returns:
        What was counted.

    Raises:
        OutputError: An output exists or cannot be written.
        SourceError: The source gave no frame.
        ReidEdgeError: A part of the camera cannot be opened, or fails.
    """
    check_output(options.out, force=options.force)
    with contextlib.ExitStack() as closing:
        video = None
        if options.video is not None:
            video = closing.enter_context(AnnotatedVideo(options.video, force=options.force))
        recorder = Recorder(settings.filter.masks, options.limits, lambda *seen: follow(*seen))
        pipeline = Pipeline(settings, _Nobody(), closing, watcher=recorder)
        seconds = options.seconds or (LIVE_S if pipeline.source.live else None)
        step = notify(f"looking at {pipeline.source.name}", pipeline.source.stats.expected or 0)
        done = 0

        def follow(frame: Frame, tracked: TrackedBoxes) -> None:
            nonlocal done
            if video is not None:
                video.add(frame, drawn(frame.image, tracked, settings.filter.masks))
            step(frame.index + 1 - done)
            done = frame.index + 1
            if seconds is not None and frame.captured_us - (recorder.first_us or 0) >= seconds * 1e6:
                pipeline.source.stop()

        patience_s = None
        if pipeline.source.live and seconds is not None:
            patience_s = seconds + settings.source.open_timeout_s
        _run(pipeline, patience_s)
        if not recorder.frames and not pipeline.detection.stats.off:
            why = pipeline.source.stats.error or "it gave none"
            raise SourceError(f"{pipeline.source.name}: no frame to look at: {why}. Try it with: reid-edge run --check")
        counts = Counts.of(pipeline, published=recorder.observations)
        text = page(recorder, counts, suspicions(counts), settings, options, pipeline)
        write_whole(options.out, text.encode(), private=True)
    return counts


def _run(pipeline: Pipeline, patience_s: float | None) -> None:
    """Run both stages to the end of the source, or until interrupted.

    Args:
        pipeline: The stages.
        patience_s: Time after which the source is stopped, whether frames came or not; None: never.

    Raises:
        ReidEdgeError: A stage failed.
    """
    failures: list[BaseException] = []

    def embed() -> None:
        try:
            pipeline.embedding.run()
        except BaseException as error:  # raised again below
            failures.append(error)
            pipeline.source.stop()
            pipeline.crop_queue.finish()

    embedding = threading.Thread(target=embed, name="embedding", daemon=True)
    embedding.start()
    with _stopped_after(pipeline, patience_s):
        try:
            pipeline.detection.run()
        except KeyboardInterrupt:
            pipeline.source.stop()
        finally:
            embedding.join()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _stopped_after(pipeline: Pipeline, patience_s: float | None) -> Iterator[None]:
    timer = None
    if patience_s is not None:
        timer = threading.Timer(patience_s, pipeline.source.stop)
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
