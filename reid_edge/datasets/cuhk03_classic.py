"""Reader of CUHK03 in its first protocol: 20 splits of 100 test people each (Li et al., CVPR 2014), single-shot.

The splits are those of ``testsets`` in ``cuhk-03.mat``: for each the camera pair and the person of 100 people, counted
from 1.  All others are for training.
"""

from __future__ import annotations

import re
from pathlib import Path

from reid_edge.datasets.cuhk03 import NESTED, PIXELS, Boxes, extract, open_pixels, pixel_file
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import entry, images_in, locate
from reid_edge.errors import DatasetError
from reid_edge.images import bare_name

#: Splits of 100 test people each.
CLASSIC_SPLITS = 20
#: camera pair _ person _ view (1 or 2) _ image
_NAME = re.compile(r"^(\d)_(\d{3})_([12])_\d{2}$")
#: Persons of a pair are counted from 1 to 843.
_PAIR_STEP = 10_000

#: Camera pair and person.
_Person = tuple[int, int]


def load_cuhk03_classic(boxes: Boxes, root: Path, split: Split, number: int) -> list[LabelledImage]:
    """List one split of one of the 20 test sets, from ``cuhk-03.mat`` as it is distributed.

    Query and gallery are both all images of the 100 people.  Each is to be searched for among those of the other view,
    one image of each person (:mod:`reid_edge.evaluation.single_shot`).  The images are extracted to ``images_detected``
    (``images_labeled``), once, as for the protocol of 2017.

    Args:
        boxes: Detected or labelled ones.
        root: Folder of the dataset.
        split: Split whose images are listed.
        number: Number of the test set, 0 to 19.

    Raises:
        DatasetError: ``cuhk-03.mat`` is not there, or it does not hold what the dataset's does.
        MissingExtraError: h5py is not installed.
        OutputError: The images cannot be extracted.
    """
    folder = locate("CUHK03", root, NESTED, (PIXELS, "cuhk03_release"))
    pixels = pixel_file(folder)
    if pixels is None:
        raise DatasetError(f"{folder} does not hold {PIXELS}, which lists the people for testing. Unpack CUHK03 again.")
    testing = _test_set(pixels, number)
    name = f"images_{boxes}"
    extracted = entry(folder, name) or entry(folder.parent, name) or folder / name
    if not extracted.is_dir():
        extract(pixels, boxes, extracted)
    images = [_image(path) for path in images_in(extracted)]
    if missing := testing - {_person(image) for image in images}:
        raise DatasetError(
            f"{extracted} has no image of {len(missing)} of the {len(testing)} people of test set {number}, e.g. of "
            f"person {min(missing)[1]} of camera pair {min(missing)[0]}. Remove the folder, and it is extracted again."
        )
    return [image for image in images if (_person(image) in testing) == (split != "train")]


def _test_set(pixels: Path, number: int) -> frozenset[_Person]:
    with open_pixels(pixels) as file:
        try:
            references = file["testsets"][:].ravel()
            rows = [file[reference][:].T for reference in references]
            people = frozenset((int(pair), int(person)) for pair, person in rows[number])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"{pixels} does not hold CUHK03's {CLASSIC_SPLITS} 'testsets' ({error}). Unpack CUHK03 again."
            ) from error
    if len(rows) != CLASSIC_SPLITS or not people:
        raise DatasetError(f"{pixels} holds {len(rows)} test sets, not {CLASSIC_SPLITS}. Unpack CUHK03 again.")
    return people


def _image(path: Path) -> LabelledImage:
    match = _NAME.match(bare_name(path))
    if match is None:
        raise DatasetError(f"{path} is not named as CUHK03's images are (e.g. 1_001_1_01.png). Move it away.")
    pair, person, view = map(int, match.groups())
    return LabelledImage(path, pair * _PAIR_STEP + person, view)


def _person(image: LabelledImage) -> _Person:
    return divmod(image.identity, _PAIR_STEP)
