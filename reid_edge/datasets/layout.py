"""Finding what a dataset unpacks to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from reid_edge.errors import DatasetError
from reid_edge.images import IMAGE_SUFFIXES


def locate(title: str, root: Path, nested: Sequence[str], holds: Sequence[str]) -> Path:
    """The folder that holds a dataset's own folders or files: ``root``, or a folder in it that bears a usual name.

    Args:
        title: What the dataset is called, for messages.
        root: What was given.
        nested: Names of folders that the dataset may lie in below ``root``.
        holds: The folder has at least one of these.

    Raises:
        DatasetError: No such folder, or nothing of this dataset in it.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; give the folder that {title} unpacks to.")
    for folder in (root, *(root / name for name in nested)):
        if any((folder / name).exists() for name in holds):
            return folder
    raise DatasetError(
        f"{root} does not hold {title}: expected {' or '.join(holds)} in it, or in its {' or '.join(nested)}. "
        f"Give the folder that {title} unpacks to."
    )


def images_in(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Images directly in a folder, by suffix in any case, in order of name; hidden ones left out.

    Raises:
        DatasetError: No such folder, or no image in it.
    """
    wanted = frozenset(suffixes)
    if not folder.is_dir():
        raise DatasetError(f"expected the folder {folder}, which is not there. Unpack the dataset again.")
    # Hidden files are what other systems leave beside images (._0001.jpg).
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted and path.name[0] != ".")
    if not images:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(wanted))}). Unpack the dataset again.")
    return images


def require_files(paths: Sequence[Path], told_by: Path) -> None:
    """Check that files which a list names are there.

    Raises:
        DatasetError: Some are not; the first ones are named.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:3]))
        raise DatasetError(
            f"{told_by} names {len(paths):,} images, of which {len(missing):,} are not there: {named}"
            f"{' …' if len(missing) > 3 else ''}. Unpack the dataset again."
        )
