"""Market-1501 (Zheng et al., ICCV 2015): what its file names say, and what its folders must hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_edge.errors import DatasetError

Split = Literal["train", "query", "gallery"]

_FOLDERS: dict[Split, str] = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
#: Images of each split, junk left out (OSNet paper, Table 2).
IMAGE_COUNTS: dict[Split, int] = {"train": 12_936, "query": 3_368, "gallery": 15_913}
JUNK = -1
#: identity _ c camera s sequence _ frame _ box
_NAME = re.compile(r"^(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}\.jpg$")


@dataclass(frozen=True)
class LabelledImage:
    """An image with its identity (0: a distractor, of no query's identity) and camera (1 to 6)."""

    path: Path
    identity: int
    camera: int


def load_market1501(root: Path, split: Split, *, partial: bool = False) -> list[LabelledImage]:
    """List one split, in order of file name, junk (identity -1) left out, distractors (identity 0) kept.

    Args:
        root: The folder that holds ``bounding_box_train``, ``query`` and ``bounding_box_test``, or one that holds
            ``Market-1501-v15.09.15``.
        split: Which images.
        partial: Take a subset: do not check the number of images.

    Raises:
        DatasetError: No such folder, a ``.jpg`` whose name is not Market-1501's, or a wrong number of images.
    """
    folder = _find(root) / _FOLDERS[split]
    if not folder.is_dir():
        raise DatasetError(
            f"no {split} split: expected the folder {folder}. "
            f"ROOT must hold {', '.join(_FOLDERS.values())}, as Market-1501 unpacks."
        )
    images = [_parse(path) for path in sorted(folder.glob("*.jpg"))]
    kept = [image for image in images if image.identity != JUNK]
    if not kept:
        raise DatasetError(f"{folder} holds no image named as Market-1501 names them, e.g. 0002_c1s1_000451_03.jpg.")
    if not partial and len(kept) != IMAGE_COUNTS[split]:
        raise DatasetError(
            f"{folder} holds {len(kept):,} images besides junk; Market-1501's {split} split has "
            f"{IMAGE_COUNTS[split]:,}. Unpack it again, or use --partial for a subset on purpose."
        )
    return kept


def _find(root: Path) -> Path:
    nested = root / "Market-1501-v15.09.15"
    return nested if nested.is_dir() else root


def _parse(path: Path) -> LabelledImage:
    match = _NAME.match(path.name)
    if match is None:
        raise DatasetError(
            f"{path} is not named as Market-1501 names images (identity_cCAMERAsSEQUENCE_FRAME_BOX.jpg, "
            "e.g. 0002_c1s1_000451_03.jpg)."
        )
    return LabelledImage(path, int(match[1]), int(match[2]))
