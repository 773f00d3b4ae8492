"""Reader of MSMT17 (Wei et al., CVPR 2018), version 1 and version 2 (masked faces): lists of paths and identities."""

from __future__ import annotations

import re
from pathlib import Path

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import locate, require_files
from reid_edge.errors import DatasetError

_LISTS: dict[Split, str] = {"train": "list_train.txt", "query": "list_query.txt", "gallery": "list_gallery.txt"}
_NESTED = ("MSMT17_V1", "MSMT17_V2", "msmt17", "msmt17/MSMT17_V1", "msmt17/MSMT17_V2")
#: identity folder / identity _ running number _ camera _ time of day _ … , then the identity again.
_LINE = re.compile(r"^(\S+/\d+_\d+_(\d+)_\S+\.jpg) (\d+)$")


def load_msmt17(root: Path, split: Split) -> list[LabelledImage]:
    """List one split in the order of its list; ``list_val.txt`` is left out, as in the paper's Table 2.

    MSMT17 counts identities from 0, which elsewhere stands for distractors: 1 is added.

    Raises:
        DatasetError: The folder, its list or an image is missing, or a line has another form than MSMT17's.
    """
    folder = locate("MSMT17", root, _NESTED, tuple(_LISTS.values()))
    list_file = folder / _LISTS[split]
    if not list_file.is_file():
        raise DatasetError(f"no {split} split: expected the list {list_file}. Unpack MSMT17 again.")
    pictures = _pictures(folder, "train" if split == "train" else "test")
    lines = list_file.read_text(encoding="utf-8", errors="replace").splitlines()
    images = [_parse(list_file, number, line, pictures) for number, line in enumerate(lines, 1) if line.strip()]
    if not images:
        raise DatasetError(f"{list_file} is empty. Unpack MSMT17 again.")
    require_files([image.path for image in images], list_file)
    return images


def _pictures(folder: Path, part: str) -> Path:
    names = (part, f"mask_{part}_v2")
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise DatasetError(
        f"{folder} holds neither {names[0]} (version 1) nor {names[1]} (version 2). Unpack MSMT17 again."
    )


def _parse(list_file: Path, number: int, line: str, pictures: Path) -> LabelledImage:
    match = _LINE.match(line.strip())
    if match is None:
        raise DatasetError(
            f"{list_file}, line {number}: expected 'FOLDER/FILE.jpg IDENTITY' as in "
            f"'0000/0000_000_01_0303morning_0015_0.jpg 0', got {line!r}."
        )
    return LabelledImage(pictures / match[1], int(match[3]) + 1, int(match[2]))
