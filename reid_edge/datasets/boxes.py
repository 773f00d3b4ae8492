"""Reader of datasets in Market-1501's layout: three folders, and identity and camera in the file names.

Market-1501 (Zheng et al., ICCV 2015) introduced the layout; DukeMTMC-reID (Zheng et al., ICCV 2017) and CUHK03-NP,
which is CUHK03 in its new protocol (Zhong et al., CVPR 2017), follow it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import images_in, locate
from reid_edge.errors import DatasetError

FOLDERS: dict[Split, str] = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
#: Identity of boxes that are neither a person of the dataset nor a distractor.
JUNK = -1


@dataclass(frozen=True, kw_only=True)
class BoxLayout:
    """Folders and file names of one of these datasets.

    Attributes:
        title: Name of the dataset.
        nested: Subfolders in which the dataset may lie.
        suffixes: Suffixes of its images.
        name: Pattern of a file name; group 1 is the identity, group 2 the camera.
        example: A file name.
    """

    title: str
    nested: tuple[str, ...]
    suffixes: tuple[str, ...]
    name: re.Pattern[str]
    example: str


MARKET1501 = BoxLayout(
    title="Market-1501",
    nested=("Market-1501-v15.09.15", "market1501", "market1501/Market-1501-v15.09.15"),
    suffixes=(".jpg",),
    # identity _ c camera s sequence _ frame _ box
    name=re.compile(r"^(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}\.jpg$"),
    example="0002_c1s1_000451_03.jpg",
)
DUKEMTMC = BoxLayout(
    title="DukeMTMC-reID",
    nested=("DukeMTMC-reID", "dukemtmc", "dukemtmc/DukeMTMC-reID"),
    suffixes=(".jpg",),
    name=re.compile(r"^(\d{4})_c(\d)_f\d+\.jpg$"),
    example="0002_c1_f0044158.jpg",
)
CUHK03_NP = BoxLayout(
    title="CUHK03-NP",
    nested=("detected", "cuhk03-np/detected", "cuhk03/detected"),
    suffixes=(".png", ".jpg"),
    name=re.compile(r"^(\d{4})_c(\d)\w*\.(?:png|jpg)$"),
    example="0001_c1_1.png",
)


def load_boxes(layout: BoxLayout, root: Path, split: Split) -> list[LabelledImage]:
    """List one split in order of file name, without junk (identity -1), with distractors (identity 0).

    Raises:
        DatasetError: The folder is missing or holds no image, or a file name is not the dataset's.
    """
    folder = locate(layout.title, root, layout.nested, tuple(FOLDERS.values())) / FOLDERS[split]
    if not folder.is_dir():
        raise DatasetError(
            f"no {split} split: expected the folder {folder}. "
            f"ROOT must hold {', '.join(FOLDERS.values())}, as {layout.title} unpacks."
        )
    images = [_parse(layout, path) for path in images_in(folder, layout.suffixes)]
    kept = [image for image in images if image.identity != JUNK]
    if not kept:
        raise DatasetError(f"{folder} holds nothing but junk (identity -1). Unpack {layout.title} again.")
    return kept


def _parse(layout: BoxLayout, path: Path) -> LabelledImage:
    match = layout.name.match(path.name)
    if match is None:
        raise DatasetError(
            f"{path} is not named as {layout.title} names images (e.g. {layout.example}). "
            "Check that --dataset is the dataset in this folder."
        )
    return LabelledImage(path, int(match[1]), int(match[2]))
