"""Files of pairs: features of the same crops by two models, as NumPy's ``.npz``.

Arrays: ``format_version`` (whole number), ``models`` (two hashes, old and new), ``old`` and ``new`` (N×D float32) and
``groups`` (N whole numbers: crops with the same number show one person).  No pictures, no names.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from reid_edge.errors import PairsError, shortened
from reid_edge.files import check_output, read_regular, write_whole
from reid_edge.identity.migration import Pairs

FORMAT_VERSION = 1
#: More than 100,000 pairs take.
MAX_BYTES = 1 << 30


def check_pairs_file(path: Path, *, force: bool) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        PairsError: The name does not end in ``.npz``.
        OutputError: It exists and ``force`` is off, or its folder cannot be written.
    """
    if path.suffix != ".npz":
        raise PairsError(f"the name of a file of pairs ends in .npz, got {path}.")
    check_output(path, force=force)


def write_pairs(path: Path, pairs: Pairs) -> None:
    """Write pairs, whole or not at all, readable by this user alone: features are personal data.

    Raises:
        OutputError: It cannot be written.
    """
    content = io.BytesIO()
    np.savez(
        content,
        format_version=np.int64(FORMAT_VERSION),
        models=np.array([pairs.old_hash, pairs.new_hash]),
        old=pairs.old,
        new=pairs.new,
        groups=pairs.groups,
    )
    write_whole(path, content.getvalue(), private=True)


def read_pairs(path: Path) -> Pairs:
    """Read a file of pairs.

    Raises:
        PairsError: There is none, it holds something else, or its pairs cannot be used.
    """
    advice = "Make it with: reid-edge gallery pairs OLD_BUNDLE NEW_BUNDLE --crops FOLDER"
    try:
        content = read_regular(path, max_bytes=MAX_BYTES)
    except OSError as error:
        raise PairsError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            arrays = {name: held[name] for name in ("format_version", "models", "old", "new", "groups")}
        version, models = int(arrays["format_version"]), [str(each) for each in arrays["models"]]
    except Exception as error:  # NumPy's, zipfile's and zlib's have no common base
        raise PairsError(f"{path} is no file of pairs ({shortened(error)}). {advice}") from error
    if version > FORMAT_VERSION:
        raise PairsError(f"{path} has format {version}; this release reads up to {FORMAT_VERSION}. Upgrade reid-edge.")
    kinds = {"old": "f", "new": "f", "groups": "iu"}
    wrong = [name for name, kind in kinds.items() if arrays[name].dtype.kind not in kind]
    if wrong or len(models) != 2:
        raise PairsError(f"{path} is no file of pairs: {', '.join(wrong) or 'models'} hold something else. {advice}")
    return Pairs(
        old_hash=models[0],
        new_hash=models[1],
        old=arrays["old"].astype(np.float32),
        new=arrays["new"].astype(np.float32),
        groups=arrays["groups"].astype(np.int64),
    )
