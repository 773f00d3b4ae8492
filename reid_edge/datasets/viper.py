"""VIPeR (Gray et al., PETS 2007): 632 people, each seen once by camera a and once by camera b."""

from __future__ import annotations

import re
from pathlib import Path

from reid_edge.datasets.layout import images_in, locate
from reid_edge.datasets.records import LabelledImage, Split
from reid_edge.datasets.splits import training_half
from reid_edge.errors import DatasetError

_CAMERAS = ("cam_a", "cam_b")
_NAME = re.compile(r"^(\d+)_\d+\.bmp$")


def load_viper(root: Path, split: Split, number: int) -> list[LabelledImage]:
    """List one split of one of the ten random halvings.

    As in the paper's Table 2, query and gallery are both the 632 images of the other 316 people: each image is searched
    for among those of both cameras, without its own.  VIPeR counts people from 0, which elsewhere stands for
    distractors: 1 is added.

    Raises:
        DatasetError: No such folder, a strange file name, or a person who is not seen once by each camera.
    """
    folder = locate("VIPeR", root, ("VIPeR", "VIPeR.v1.0", "viper", "viper/VIPeR", "viper/VIPeR.v1.0"), _CAMERAS)
    views = [_view(folder / name, camera) for camera, name in enumerate(_CAMERAS, 1)]
    if unpaired := sorted(set(views[0]) ^ set(views[1])):
        raise DatasetError(
            f"{folder}: {len(unpaired)} people are not seen by both cameras, e.g. number {unpaired[0] - 1:03d}. "
            "Unpack VIPeR again."
        )
    train = training_half("viper", number, views[0])
    return [view[identity] for view in views for identity in view if (identity in train) == (split == "train")]


def _view(folder: Path, camera: int) -> dict[int, LabelledImage]:
    view: dict[int, LabelledImage] = {}
    for path in images_in(folder, (".bmp",)):
        match = _NAME.match(path.name)
        if match is None:
            raise DatasetError(f"{path} is not named as VIPeR names images (e.g. 000_45.bmp).")
        identity = int(match[1]) + 1
        if identity in view:
            raise DatasetError(f"{view[identity].path} and {path} show the same person; VIPeR has one image of each.")
        view[identity] = LabelledImage(path, identity, camera)
    return view
