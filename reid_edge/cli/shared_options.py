"""Arguments and options that several commands take, and the reading of lists in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reid_edge.errors import UsageError
from reid_edge.manifest import EngineChoice, PrecisionChoice
from reid_edge.types import device_name

BundleArgument = Annotated[Path, typer.Argument(help="Folder that 'reid-edge export' made.")]
EngineOption = Annotated[
    EngineChoice, typer.Option(help="Engine that runs the model. auto: the best one on this device.")
]
PrecisionOption = Annotated[
    PrecisionChoice, typer.Option(help="Which file runs. auto: the tuned file if it was tuned here, else a float file.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: the engine decides.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        callback=device_name,
        help="Device: CPU; OpenVINO's GPU, GPU.1, NPU, AUTO; or ONNX Runtime's CUDA, TENSORRT, OPENVINO, DML.",
    ),
]
TrustedKeyOption = Annotated[
    list[str] | None,
    typer.Option(help="Public key (PEM file or base64) that must have signed the bundle. May be repeated."),
]
FlipOption = Annotated[bool, typer.Option("--flip", help="Average each feature with that of the mirrored crop.")]
PartialOption = Annotated[bool, typer.Option("--partial", help="Accept a subset: do not check the number of images.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Skip images that cannot be read, and report how many.")
]
WidthOption = Annotated[float | None, typer.Option(help="Width multiplier β: more than 0, at most 1.5.")]


def choices(text: str, allowed: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Split the value of an option that takes names with commas between.

    Args:
        text: The value given.
        allowed: Names that the option takes.
        option: Name of the option, for the error.

    Raises:
        UsageError: No name, or one that is not allowed.
    """
    chosen = comma_separated(text)
    if not chosen or set(chosen) - set(allowed):
        raise UsageError(f"{option} takes one or more of {','.join(allowed)}, got '{text}'.")
    return chosen


def comma_separated(text: str) -> tuple[str, ...]:
    """Split a value at its commas; blanks, empty parts and repetitions are left out."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
