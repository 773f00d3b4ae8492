"""What a re-identification dataset says of its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "query", "gallery"]


@dataclass(frozen=True)
class LabelledImage:
    """An image with its identity and camera.

    Attributes:
        path: The file.
        identity: Who; 0 in a gallery: a distractor, of no query's identity.
        camera: Which; 0: not known, which only training allows.
        member: Of a union: which of its datasets, from 0.
    """

    path: Path
    identity: int
    camera: int
    member: int = 0
