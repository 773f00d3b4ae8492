"""Load a split of any re-identification dataset, or of a union of several, by name, and check it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial as bound
from pathlib import Path

from reid_edge.datasets.boxes import DUKEMTMC, MARKET1501, load_boxes
from reid_edge.datasets.cuhk03 import NESTED as CUHK03_FOLDERS
from reid_edge.datasets.cuhk03 import load_cuhk03
from reid_edge.datasets.cuhk03_classic import CLASSIC_SPLITS, load_cuhk03_classic
from reid_edge.datasets.labelled_images import LabelledImage, Split, check_size
from reid_edge.datasets.layout import folder_named
from reid_edge.datasets.msmt17 import NESTED as MSMT17_FOLDERS
from reid_edge.datasets.msmt17 import load_msmt17
from reid_edge.datasets.own_images import load_csv, load_folder
from reid_edge.datasets.random_splits import GRID_NESTED, SPLITS, VIPER_NESTED, load_grid, load_viper
from reid_edge.errors import DatasetError

_FIXED: dict[str, Callable[[Path, Split], list[LabelledImage]]] = {
    "market1501": bound(load_boxes, MARKET1501),
    "cuhk03": bound(load_cuhk03, "detected"),
    "cuhk03-labeled": bound(load_cuhk03, "labeled"),
    "dukemtmc": bound(load_boxes, DUKEMTMC),
    "msmt17": load_msmt17,
    "folder": load_folder,
    "csv": load_csv,
}
_NUMBERED: dict[str, Callable[[Path, Split, int], list[LabelledImage]]] = {
    "cuhk03-classic": bound(load_cuhk03_classic, "detected"),
    "cuhk03-classic-labeled": bound(load_cuhk03_classic, "labeled"),
    "viper": load_viper,
    "grid": load_grid,
}
#: Names that :func:`load_split` takes, alone or joined by ``+``.
REID_DATASETS: tuple[str, ...] = (
    "market1501", "cuhk03", "cuhk03-labeled", "cuhk03-classic", "cuhk03-classic-labeled", "dukemtmc", "msmt17", "viper",
    "grid", "folder", "csv",
)  # fmt: skip
#: The paper's training set for VIPeR and GRID (section 4.1).
MIX4 = ("market1501", "cuhk03", "dukemtmc", "msmt17")

#: Names that the folder of a dataset has elsewhere, besides its own name.
_FOLDERS: dict[str, tuple[str, ...]] = {
    "market1501": MARKET1501.nested,
    **dict.fromkeys(("cuhk03", "cuhk03-labeled", "cuhk03-classic", "cuhk03-classic-labeled"), CUHK03_FOLDERS),
    "dukemtmc": DUKEMTMC.nested,
    "msmt17": MSMT17_FOLDERS,
    "viper": VIPER_NESTED,
    "grid": GRID_NESTED,
}
#: Added to identities and cameras for each member of a union, so that those of different members differ.
_IDENTITY_STEP, _CAMERA_STEP = 10_000_000, 10_000


def members_of(name: str) -> tuple[str, ...]:
    """Return the datasets that a name stands for: itself, or a union's members.

    Raises:
        DatasetError: A name is unknown, or stands twice in a union.
    """
    members = MIX4 if name == "mix4" else tuple(name.split("+"))
    for member in members:
        if member not in REID_DATASETS:
            raise DatasetError(
                f"{member!r} is not a known dataset; known: {', '.join(REID_DATASETS)}, several of them joined by +, "
                f"and mix4 ({'+'.join(MIX4)})."
            )
    if len(set(members)) != len(members):
        raise DatasetError(f"the union {name} names a dataset twice.")
    return members


def has_random_splits(name: str) -> bool:
    """Return True for a dataset that has random splits (VIPeR, GRID, CUHK03 of 2014), or a union with such a member."""
    return any(member in _NUMBERED for member in members_of(name))


def splits_of(name: str) -> int:
    """Return the number of a dataset's random splits, of a union the lowest of its members'; 1 where there are none."""
    counts = [_splits_of_one(member) for member in members_of(name) if member in _NUMBERED]
    return min(counts, default=1)


def _splits_of_one(name: str) -> int:
    return CLASSIC_SPLITS if is_single_shot(name) else SPLITS


def searches_other_cameras(name: str) -> bool:
    """Return True for a dataset whose queries are searched for in the other cameras only: a in b and b in a."""
    return name == "viper" or is_single_shot(name)


def is_single_shot(name: str) -> bool:
    """Return True for a dataset whose gallery holds one image of each person at a time: CUHK03 of 2014."""
    return name in ("cuhk03-classic", "cuhk03-classic-labeled")


def load_split(
    name: str, root: Path, split: Split, *, partial: bool = False, number: int = 0, same_camera: bool = False
) -> list[LabelledImage]:
    """List the images of one split of a dataset, always in the same order.

    Junk is left out, distractors (identity 0) are kept.  In a union, identities and cameras of different members are
    different numbers; distractors stay 0.

    Args:
        name: One of :data:`REID_DATASETS`, several joined by ``+``, or ``mix4``.
        root: Folder that the dataset unpacks to, or the one above; of a union, the folder that holds each member in a
            folder of its name or of a usual one; of ``csv``, the file.
        split: Split whose images are listed.
        partial: Accept a subset: do not compare the numbers of images and identities with the paper's Table 2.
        number: Number of the random split, from 0, of datasets that have such.
        same_camera: Matches of the same camera will count: the cameras of queries and gallery need not be known.

    Raises:
        DatasetError: The name is unknown, the folder or its layout is not the dataset's, the numbers differ from the
            published ones, an image is listed twice, cameras are not known, or there is only one identity to train on.
        MissingExtraError: h5py or scipy, which the dataset needs, is not installed.
        OutputError: CUHK03 cannot be extracted beside its file.
    """
    _check_number(name, number)
    members = members_of(name)
    if len(members) == 1:
        images = _load(name, root, split, partial=partial, number=number)
        check_cameras(images, split, same_camera=same_camera)
    else:
        images = []
        for place, member in enumerate(members):
            loaded = _load(member, member_folder(root, member), split, partial=partial, number=number)
            check_cameras(loaded, split, same_camera=same_camera)
            images += [renumbered(image, place, split) for image in loaded]
    if split == "train" and len({image.identity for image in images}) < 2:
        raise DatasetError(
            f"{name} in {root} has images of one identity only; there is nothing to tell apart. Add more people."
        )
    return images


def member_folder(root: Path, member: str) -> Path:
    """Return the folder of a union's member: of its name, or of one that the dataset has elsewhere, in any case.

    Raises:
        DatasetError: There is none.
    """
    names = tuple(dict.fromkeys((member, *_FOLDERS.get(member, ()))))
    try:
        folder = folder_named(root, names)
    except OSError as error:
        raise DatasetError(f"{root} cannot be read ({error}).") from error
    if folder is None:
        raise DatasetError(
            f"{root} holds no folder of {member}: expected {' or '.join(names)}. Give the folder that holds one for "
            "each dataset of the union (--root)."
        )
    return folder


def _check_number(name: str, number: int) -> None:
    if number and not has_random_splits(name):
        raise DatasetError(
            f"{name} has only its own split; leave out split {number} ({', '.join(_NUMBERED)} have random ones)."
        )
    if not 0 <= number < splits_of(name):
        raise DatasetError(
            f"split {number} does not exist: the random splits of {name} are numbered 0 to {splits_of(name) - 1}."
        )


def _load(name: str, root: Path, split: Split, *, partial: bool, number: int) -> list[LabelledImage]:
    try:
        images = _NUMBERED[name](root, split, number) if name in _NUMBERED else _FIXED[name](root, split)
    except OSError as error:  # a folder without permission, a disk that fails
        raise DatasetError(f"{root} cannot be read ({error}).") from error
    if not images:
        raise DatasetError(f"{root}: the {split} split of {name} has no image. Unpack it again.")
    _refuse_repeated(images)
    if split == "query" and (distractors := [image.path for image in images if not image.identity]):
        raise DatasetError(
            f"{distractors[0]} has identity 0, which stands for distractors: they belong in the gallery. "
            "Number people from 1."
        )
    if not partial:
        check_size(name, split, images)
    return images


def check_cameras(images: Sequence[LabelledImage], split: Split, *, same_camera: bool = False) -> None:
    """Check that cameras are known: of all queries and gallery, in training of all images or of none.

    Args:
        images: Images of one split.
        split: The split.
        same_camera: Matches of the same camera will count: cameras of queries and gallery need not be known.

    Raises:
        DatasetError: Cameras are not known.
    """
    without = [image.path for image in images if not image.camera]
    if not without or (len(without) == len(images) if split == "train" else same_camera):
        return
    advice = (
        "For training, name the cameras of all images or of none."
        if split == "train"
        else "Without cameras, matches of the same camera, which are easier to find, can be counted: --same-camera."
    )
    raise DatasetError(
        f"{len(without):,} of {len(images):,} images of the {split} split name no camera, e.g. {without[0]}: expected "
        f"a whole number from 1, in a folder after _c, as in 17_c3.jpg, in a CSV file in the column camera. {advice}"
    )


def _refuse_repeated(images: Sequence[LabelledImage]) -> None:
    seen: set[Path] = set()
    for image in images:
        if image.path in seen:
            raise DatasetError(f"{image.path} is listed twice. Unpack the dataset again, or correct the list.")
        seen.add(image.path)


def renumbered(image: LabelledImage, place: int, split: Split) -> LabelledImage:
    """Give an image of a union's member the union's identity and camera.

    Args:
        image: The image.
        place: Index of its dataset in the union, from 0.
        split: Its split; distractors of query and gallery stay distractors.

    Raises:
        DatasetError: Its identity or camera is too large a number.
    """
    if image.identity >= _IDENTITY_STEP or image.camera >= _CAMERA_STEP:
        raise DatasetError(
            f"{image.path}: in a union, identities must be below {_IDENTITY_STEP:,} and cameras below {_CAMERA_STEP:,}."
        )
    distractor = split != "train" and not image.identity
    return replace(
        image,
        identity=0 if distractor else image.identity + place * _IDENTITY_STEP,
        camera=image.camera + place * _CAMERA_STEP if image.camera else 0,
        member=place,
    )
