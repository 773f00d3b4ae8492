"""Crops of a place from its videos, for the commands that look at people without publishing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_edge.cli.camera import camera_settings
from reid_edge.console import extra, say
from reid_edge.redaction import redacted

if TYPE_CHECKING:
    from reid_edge.camera.site_crops import SiteCrops
    from reid_edge.progress import Notify
    from reid_edge.types import Size

PlaceSources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="Video of this place (as 'run --source'); its people are cut out in memory. Repeat it for each camera.",
    ),
]
PlaceSeconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        min=0.1,
        help="Length to watch each --source, seconds. Default: until there are enough crops, or the file ends.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class CameraOptions:
    """What 'run' takes alike, and the length to watch, seconds."""

    config: Path | None
    detector: str | None
    assignments: tuple[str, ...]
    seconds: float | None


def video_crops(uri: str, model: Path, size: Size, most: int, camera: CameraOptions, notify: Notify) -> SiteCrops:
    """Cut the people out of a video, in memory, and say on standard error how many there are.

    Args:
        uri: The video.
        model: Any path: no engine embeds anything here, and the settings only ask for the name of a bundle.
        size: Height and width that crops are resized to.
        most: Number of crops after which it ends.
        camera: Options of the camera.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
    """
    with extra("camera", "looking at a video"):
        from reid_edge.camera.site_crops import collect_crops

    given = {"source.uri": uri, "engine.bundle": str(model)}
    settings = camera_settings(camera.config, given, camera.detector, camera.assignments)
    found = collect_crops(settings, size, most=most, seconds=camera.seconds, notify=notify)
    say(
        f"{redacted(uri)}: {len(found.crops):,} crops of {found.tracks:,} tracks; {found.refused:,} other tracks were "
        "not like one whole person"
    )
    return found
