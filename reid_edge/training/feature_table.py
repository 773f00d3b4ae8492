"""Features of the training images that another program computed, as a teacher of any architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from reid_edge.errors import DatasetError
from reid_edge.features import names_file, read_array
from reid_edge.training.pixels import Images

#: Most parts of a path, from its end, by which images are told apart.
_MOST_PARTS = 8


def read_table(path: Path, images: Images) -> npt.NDArray[np.float32]:
    """Read the features of a run's training images.

    The file is ``.npy``, N×D numbers, and beside it ``NAME.sources.txt`` has the path of each row's image, as
    ``reid-edge extract`` writes them.  Rows may be in any order, and those of other images are left out.  Images are
    found by the ends of their paths: by name, or where names are not unique also by their folders.

    Args:
        path: The file.
        images: The run's training images.

    Returns:
        N×D float32, in the order of the images; the largest number of each row is 1, or −1.

    Raises:
        DatasetError: The files cannot be read or do not fit each other, values are not finite or all zero, or an image
            is missing.
    """
    if isinstance(images, np.ndarray):
        raise DatasetError(f"distill.teachers: {path} names its images by their files, and this dataset has none.")
    features, sources = _features(path), _sources(path)
    if features.ndim != 2 or not features.shape[1] or len(features) != len(sources):
        raise DatasetError(
            f"distill.teachers: {path} has the shape {features.shape}, and {names_file(path)} {len(sources)} lines; "
            "give N×D features, D at least 1, and N names."
        )
    rows = features[_rows([PurePath(source) for source in sources], images, path)].astype(np.float64)
    largest: npt.NDArray[np.float64] = np.abs(rows).max(axis=1, keepdims=True)
    if not np.isfinite(rows).all() or not largest.all():
        raise DatasetError(f"distill.teachers: features in {path} are not finite, or all zero; compute them anew.")
    scaled: npt.NDArray[np.float64] = rows / largest  # squares of larger and smaller numbers leave float32's range
    return scaled.astype(np.float32)


def _features(path: Path) -> npt.NDArray[np.generic]:
    try:
        features = read_array(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"distill.teachers: cannot read {path} ({error}); give a .npy file of features.") from error
    if not np.issubdtype(features.dtype, np.floating):
        raise DatasetError(f"distill.teachers: {path} holds {features.dtype}, not floating-point numbers.")
    return features


def _sources(path: Path) -> list[str]:
    try:
        return names_file(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"distill.teachers: cannot read {names_file(path)} ({error}), which names the image of each row of {path}; "
            "reid-edge extract writes both."
        ) from error


def _rows(sources: Sequence[PurePath], images: Sequence[Path], path: Path) -> list[int]:
    """Return the row of each image, by as few parts of the paths as tell the images apart."""
    for parts in range(1, _MOST_PARTS + 1):
        wanted = [image.parts[-parts:] for image in images]
        if len(set(wanted)) == len(wanted):
            break
    places: dict[tuple[str, ...], list[int]] = {}
    for row, source in enumerate(sources):
        places.setdefault(source.parts[-parts:], []).append(row)
    for image, key in zip(images, wanted, strict=True):
        if len(found := places.get(key, [])) != 1:
            raise DatasetError(
                f"distill.teachers: {path} has {'no features' if not found else f'{len(found)} rows'} of {image}; give "
                "one row for each training image."
            )
    return [places[key][0] for key in wanted]
