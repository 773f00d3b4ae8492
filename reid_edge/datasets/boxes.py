"""Reader of datasets in Market-1501's layout: three folders, and identity and camera in the file names.

Market-1501 (Zheng et al., ICCV 2015) introduced the layout; DukeMTMC-reID (Zheng et al., ICCV 2017), CUHK03-NP, which
is CUHK03 in its new protocol (Zhong et al., CVPR 2017), and copies of MSMT17 follow it.  Suffixes of images may be in
any case, and stand twice: 6 of Market-1501's queries end in ``.jpg.jpg``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reid_edge.datasets.labelled_images import LabelledImage, Split, without_junk
from reid_edge.datasets.layout import entry, images_in, locate
from reid_edge.errors import DatasetError
from reid_edge.images import bare_name

FOLDERS: dict[Split, str] = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


@dataclass(frozen=True, kw_only=True)
class BoxLayout:
    """Folders and file names of one of these datasets.

    Attributes:
        title: Name of the dataset.
        nested: Usual names of the folders in which the dataset lies.
        name: Pattern of a file name without its suffixes, with the groups ``identity`` and ``camera``, and ``sequence``
            and ``frame`` where names tell them.
        example: A file name.
    """

    title: str
    nested: tuple[str, ...]
    name: re.Pattern[str]
    example: str


MARKET1501 = BoxLayout(
    title="Market-1501",
    nested=("Market-1501-v15.09.15", "Market-1501"),
    # identity _ c camera s sequence _ frame _ box
    name=re.compile(r"^(?P<identity>-1|\d{4})_c(?P<camera>\d)(?P<sequence>s\d)_(?P<frame>\d{6})_\d{2}$", re.IGNORECASE),
    example="0002_c1s1_000451_03.jpg",
)
DUKEMTMC = BoxLayout(
    title="DukeMTMC-reID",
    nested=("DukeMTMC-reID", "dukemtmc", "duke"),
    # Each camera's recording is one sequence.
    name=re.compile(r"^(?P<identity>\d{4})_(?P<sequence>c(?P<camera>\d))_f(?P<frame>\d+)$", re.IGNORECASE),
    example="0002_c1_f0044158.jpg",
)


def load_boxes(layout: BoxLayout, root: Path, split: Split) -> list[LabelledImage]:
    """List one split in order of file name, without junk (identity -1), with distractors (identity 0).

    Raises:
        DatasetError: The folder is missing or holds no image, or a file name is not the dataset's.
    """
    root = locate(layout.title, root, layout.nested, tuple(FOLDERS.values()))
    folder = entry(root, FOLDERS[split])
    if folder is None:
        raise DatasetError(
            f"no {split} split: expected the folder {root / FOLDERS[split]}. "
            f"ROOT must hold {', '.join(FOLDERS.values())}, as {layout.title} unpacks."
        )
    return without_junk([_parse(layout, path) for path in images_in(folder)], folder)


def _parse(layout: BoxLayout, path: Path) -> LabelledImage:
    match = layout.name.match(bare_name(path))
    if match is None:
        raise DatasetError(
            f"{path} is not named as {layout.title} names images (e.g. {layout.example}). "
            "Move it away, or check that --dataset is the dataset in this folder."
        )
    parts = match.groupdict()
    return LabelledImage(
        path,
        int(parts["identity"]),
        int(parts["camera"]),
        sequence=parts.get("sequence", ""),
        frame=int(parts.get("frame", 0)),
    )
