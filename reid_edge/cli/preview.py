"""``reid-edge preview``: show what a camera saw, as one page, and publish nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reid_edge.cli.camera import (
    Assignments,
    CameraBundle,
    CameraEngine,
    CameraPrecision,
    Config,
    DetectorName,
    Source,
    camera_settings,
)
from reid_edge.cli.shared_options import ForceOption, TrustedKeyOption
from reid_edge.console import console, extra, progress_bars
from reid_edge.system.private_memory import keep_memory_private
from reid_edge.wording import counted

PAGE = Path("preview.html")


def preview(
    bundle: CameraBundle = None,
    config: Config = None,
    source: Source = None,
    detector: DetectorName = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Length to watch, seconds. Default: all of a file, 60 seconds of a camera.",
            show_default=False,
        ),
    ] = None,
    engine: CameraEngine = None,
    precision: CameraPrecision = None,
    trusted_key: TrustedKeyOption = None,
    set_: Assignments = None,
    out: Annotated[Path, typer.Option(help="HTML page to write; it holds pictures of people.")] = PAGE,
    video: Annotated[
        Path | None, typer.Option(help="Also write the video with boxes, track numbers and scores: .mp4, .avi or .mkv.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Show what the agent sees in a video: a page with the crops of every track, and why each was used.

    It publishes nothing.

    The page and the video hold pictures of people. Only you can read them (mode 600); delete them when you are done.
    """
    given = {
        "engine.bundle": bundle and str(bundle),
        "engine.engine": engine,
        "engine.precision": precision,
        "engine.trusted_keys": trusted_key or None,
        "source.uri": source,
    }
    settings = camera_settings(config, given, detector, set_)
    keep_memory_private()
    with extra("camera", "running a camera"):
        import cv2

        from reid_edge.camera.preview.page import PRIVACY
        from reid_edge.camera.preview.running import PreviewOptions
        from reid_edge.camera.preview.running import preview as run_preview
        from reid_edge.camera.review import suspicions

    cv2.setNumThreads(settings.pipeline.opencv_threads)
    with progress_bars() as notify:
        counts = run_preview(settings, PreviewOptions(out, video, seconds, force), notify)
    for text in suspicions(counts):
        console.print(text, soft_wrap=True)
    written = f"{out} and {video}" if video else str(out)
    console.print(
        f"{written}: {counted(counts.frames, 'frame')}, {counted(counts.detections, 'box', 'boxes')}\n{PRIVACY}",
        soft_wrap=True,
    )
