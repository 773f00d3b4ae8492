"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EngineChoice = Literal["auto", "openvino", "onnxruntime", "tensorrt"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "int8", "tuned"]

BundleArgument = Annotated[Path, typer.Argument(help="Folder that 'reid-edge export' made.")]
EngineOption = Annotated[EngineChoice, typer.Option(help="What runs the model.")]
PrecisionOption = Annotated[PrecisionChoice, typer.Option(help="Which of the bundle's files.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; the engine's choice if not given.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
WidthOption = Annotated[float | None, typer.Option(help="Width multiplier β, in (0, 1.5].")]
