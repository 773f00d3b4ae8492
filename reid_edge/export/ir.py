"""OpenVINO's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino

from reid_edge.errors import OutputError


def save_ir(model: Any, path: Path, *, half_weights: bool = False) -> None:
    """Write a model as ``.xml``, with its ``.bin`` beside it.

    Args:
        model: An OpenVINO model.
        path: The ``.xml``.
        half_weights: Store float32 weights as float16.

    Raises:
        OutputError: The disk is full, or cannot be written.
    """
    try:
        openvino.save_model(model, path, compress_to_fp16=half_weights)
    except RuntimeError as error:  # OpenVINO tells no more than that its stream failed
        raise OutputError(f"cannot write {path}: {error}. Is the disk full?") from error
