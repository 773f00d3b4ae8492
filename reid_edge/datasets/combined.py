"""Every split of a dataset as training images: ``combineall``, as torchreid and fast-reid call it.

A model that was trained so has seen the test people.  It is meant for other datasets and for your own cameras.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.loading import check_cameras, load_split, member_folder, members_of, renumbered
from reid_edge.datasets.msmt17 import load_validation

_SPLITS: tuple[Split, ...] = ("train", "query", "gallery")
#: MSMT17 counts test people from 1 again: this is added to them.
_MSMT17_TEST = 100_000
#: Datasets of your own: that two of one kind show the same people cannot be told from the name.
_OWN = ("folder", "csv")
_SUFFIX = ", all splits"


def load_combined(name: str, root: Path, *, partial: bool = False) -> list[LabelledImage]:
    """List the images of training, query and gallery of a dataset, each once, without junk and distractors.

    MSMT17's validation images are among them, as torchreid has it: 126,441 images of 4,101 people.

    Args:
        name: A dataset or a union, see :func:`reid_edge.datasets.loading.load_split`.
        root: Folder that the dataset unpacks to; of a union, the folder that holds each member.
        partial: Accept a subset: do not compare the numbers of images and identities with the published ones.

    Raises:
        DatasetError: As for a single split.
        MissingExtraError: h5py or scipy, which the dataset needs, is not installed.
        OutputError: CUHK03 cannot be extracted beside its file.
    """
    members = members_of(name)
    if len(members) == 1:
        return _combined(name, root, partial=partial)
    return [
        renumbered(image, place, "train")
        for place, member in enumerate(members)
        for image in _combined(member, member_folder(root, member), partial=partial)
    ]


def described_as_combined(name: str) -> str:
    """Describe the training images, for the metadata of a checkpoint."""
    return name + _SUFFIX


def has_seen_test_people(trained_on: str, dataset: str) -> bool:
    """Return True if a model was trained on every split of a dataset, by the description in its metadata.

    The protocols of CUHK03 show the same people.
    """
    name = trained_on.partition(_SUFFIX)[0]
    if name == trained_on:
        return False
    return bool({_family(one) for one in members_of(name)} & {_family(one) for one in members_of(dataset)} - {*_OWN})


def _family(name: str) -> str:
    return "cuhk03" if name.startswith("cuhk03") else name


def _combined(name: str, root: Path, *, partial: bool) -> list[LabelledImage]:
    images: dict[Path, LabelledImage] = {}
    for image in _images(name, root, partial=partial):
        images.setdefault(image.path, image)  # VIPeR's queries are its gallery too
    combined = list(images.values())
    check_cameras(combined, "train")
    return combined


def _images(name: str, root: Path, *, partial: bool) -> Iterator[LabelledImage]:
    for split in _SPLITS:
        for image in load_split(name, root, split, partial=partial, same_camera=True):
            if split == "train":
                yield image
            elif image.identity:
                yield replace(image, identity=image.identity + _MSMT17_TEST) if name == "msmt17" else image
    if name == "msmt17":
        yield from load_validation(root, partial=partial)
