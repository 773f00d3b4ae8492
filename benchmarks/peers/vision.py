"""torchvision beside a torch without CUDA.

The registries' torchvision for x86-64 is linked against CUDA, so that its own operators do not load beside a CPU build
of torch, and then the whole package does not import: it describes operators that are not there.  torchreid uses only
its transforms, which are Python on Pillow and torch.  Declaring the two operators by name lets the package import; they
still cannot be called, and nothing here calls them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> bool:
    """Import torchvision; True where its operators had to be declared.

    Raises:
        ImportError: torchvision is not installed.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        raise ImportError("torchvision is not installed: run benchmarks/peers/make_env.sh")
    declared = not _operators_load(Path(found.origin).parent)
    if declared:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", _ARGUMENTS)
    import torchvision  # noqa: F401

    return declared


def _operators_load(package: Path) -> bool:
    for library in package.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False
