"""Reader of MSMT17 (Wei et al., CVPR 2018): version 1, version 2 (masked faces), and copies in Market-1501's layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from reid_edge.datasets.boxes import FOLDERS, BoxLayout, load_boxes
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import entry, locate, require_files
from reid_edge.errors import DatasetError
from reid_edge.images import bare_name, is_image

_LISTS: dict[Split, str] = {"train": "list_train.txt", "query": "list_query.txt", "gallery": "list_gallery.txt"}
NESTED = ("MSMT17_V1", "MSMT17_V2", "MSMT17")
#: Images of training people that the paper leaves out.
_VALIDATION, _VALIDATION_IMAGES = "list_val.txt", 2_373
#: identity folder / identity _ running number _ camera _ time of day _ … , then the identity again.
_LINE = re.compile(r"^(\S+/\d+_\d+_(\d+)_\S+\.[a-z]+)\s+(\d+)$", re.IGNORECASE)
#: Copies name the images by identity and camera, or keep the names that MSMT17 gave them.
_BOXES = BoxLayout(
    title="MSMT17",
    nested=NESTED,
    name=re.compile(r"^(?P<identity>\d{4,5})_(?:c|\d{3}_)(?P<camera>\d{1,2})(?:s\d+)?_\w+$", re.IGNORECASE),
    example="0000_c1_0000.jpg or 0000_000_01_0303morning_0015_0.jpg",
)


def load_msmt17(root: Path, split: Split) -> list[LabelledImage]:
    """List one split: in the order of its list, or of a copy in Market-1501's layout in order of file name.

    ``list_val.txt`` is left out, as in the paper's Table 2; copies often hold its images in their train split.  MSMT17
    counts identities from 0, which elsewhere stands for distractors: 1 is added.  Some copies count cameras from 0,
    which elsewhere stands for an unknown one: 1 is added in copies.

    Raises:
        DatasetError: The folder, its list or an image is missing, or a line or name has another form than MSMT17's.
    """
    folder = locate("MSMT17", root, NESTED, (*_LISTS.values(), *FOLDERS.values()))
    if not entry(folder, *_LISTS.values()):
        images = load_boxes(_BOXES, folder, split)
        return [replace(image, identity=image.identity + 1, camera=image.camera + 1) for image in images]
    list_file = entry(folder, _LISTS[split])
    if list_file is None:
        raise DatasetError(f"no {split} split: expected the list {folder / _LISTS[split]}. Unpack MSMT17 again.")
    return _listed(list_file, _pictures(folder, "train" if split == "train" else "test"))


def load_validation(root: Path, *, partial: bool) -> list[LabelledImage]:
    """List the validation images, which show people of the train split.

    Args:
        root: Folder of the dataset.
        partial: Accept that the list is not there, and any number of images.

    Returns:
        The images of ``list_val.txt``; none in copies in Market-1501's layout, which have them in their train split if
        they have them.

    Raises:
        DatasetError: The list or an image is missing, or the list is not whole.
    """
    folder = locate("MSMT17", root, NESTED, (*_LISTS.values(), *FOLDERS.values()))
    list_file = entry(folder, _VALIDATION)
    if list_file is None:
        if partial or not entry(folder, *_LISTS.values()):
            return []
        raise DatasetError(f"no validation images: expected the list {folder / _VALIDATION}. Unpack MSMT17 again.")
    images = _listed(list_file, _pictures(folder, "train"))
    if not partial and len(images) != _VALIDATION_IMAGES:
        raise DatasetError(
            f"{list_file} lists {len(images):,} images, not {_VALIDATION_IMAGES:,}. Unpack MSMT17 again, or use "
            "--partial for an intended subset."
        )
    return images


def _listed(list_file: Path, pictures: Path) -> list[LabelledImage]:
    # Editors of Windows begin a file with a byte-order mark, and write backslashes.
    lines = list_file.read_text(encoding="utf-8-sig", errors="replace").replace("\\", "/").splitlines()
    images = [_parse(list_file, number, line, pictures) for number, line in enumerate(lines, 1) if line.strip()]
    if not images:
        raise DatasetError(f"{list_file} is empty. Unpack MSMT17 again.")
    images = _as_stored(images)
    require_files([image.path for image in images], list_file)
    return images


def _pictures(folder: Path, part: str) -> Path:
    names = (part, f"mask_{part}_v2")
    found = entry(folder, *names)
    if found is None:
        raise DatasetError(
            f"{folder} holds neither {names[0]} (version 1) nor {names[1]} (version 2). Unpack MSMT17 again."
        )
    return found


def _parse(list_file: Path, number: int, line: str, pictures: Path) -> LabelledImage:
    match = _LINE.match(line.strip())
    if match is None:
        raise DatasetError(
            f"{list_file}, line {number}: expected 'FOLDER/FILE.jpg IDENTITY' as in "
            f"'0000/0000_000_01_0303morning_0015_0.jpg 0', got {line!r}."
        )
    return LabelledImage(pictures / match[1], int(match[3]) + 1, int(match[2]))


def _as_stored(images: Iterable[LabelledImage]) -> list[LabelledImage]:
    """Give an image that is not there the path of the same name with another suffix: copies have .jpeg for .jpg."""
    stored: dict[Path, dict[str, Path]] = {}

    def path_of(listed: Path) -> Path:
        folder = listed.parent
        if folder not in stored:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
            stored[folder] = {bare_name(path): path for path in paths if is_image(path)}
        return stored[folder].get(bare_name(listed), listed)

    return [image if image.path.is_file() else replace(image, path=path_of(image.path)) for image in images]
