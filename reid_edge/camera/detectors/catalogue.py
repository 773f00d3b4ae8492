"""Detectors that are known by name: where their files come from, how to check and use them, and where they lie here."""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from reid_edge.errors import DetectorError

Precision = Literal["fp16", "fp32", "int8"]
#: In the order in which they are taken where several are there.
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]


class CatalogueFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a detector, as its makers publish it.

    Attributes:
        path: Its place below a folder with the detector's name, e.g. ``FP16/NAME.xml``.
        size: Bytes.
        sha384: SHA-384 of its content, hexadecimal.
        url: Address at its makers' archive.
    """

    path: str
    size: int
    sha384: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{96}$")]
    url: str


class CatalogueDetector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A detector that anybody may use, with what is needed to run it.

    Attributes:
        name: Its makers' name for it.
        about: What it is for, in a few words.
        licence: SPDX identifier of its licence.
        licence_url: Address of the text.
        page: Address of its description.
        input_hw: Height and width of its input, pixels.
        gflops: Billions of floating-point operations a frame, as its makers give them.
        output: Kind of its output, as ``detector.output``.
        person: Index of the class person; None if every box is a person.
        confidence: Score from which its boxes are used (docs/detectors.md tells how it was chosen).
        start: Score from which a box starts a track.
        files: ``….xml`` and ``….bin`` for each precision that works.
    """

    name: str
    about: str
    licence: str
    licence_url: str
    page: str
    input_hw: tuple[int, int]
    gflops: float
    output: Literal["ssd", "boxes"]
    person: int | None
    confidence: Score
    start: Score
    files: dict[Precision, tuple[CatalogueFile, CatalogueFile]]

    def size_mb(self, precision: Precision) -> float:
        """Return the size of its files together, 10⁶ bytes."""
        return sum(file.size for file in self.files[precision]) / 1e6


@functools.cache
def catalogue() -> dict[str, CatalogueDetector]:
    """Return the catalogue by name, in the order in which it is shown."""
    content = (Path(__file__).parent / "catalogue.json").read_bytes()
    return {one.name: one for one in msgspec.json.decode(content, type=list[CatalogueDetector])}


def catalogued(name: str) -> CatalogueDetector:
    """Return the detector of a name.

    Raises:
        DetectorError: The catalogue has no such name.
    """
    if name in catalogue():
        return catalogue()[name]
    close = difflib.get_close_matches(name, catalogue(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(catalogue())}."
    raise DetectorError(f"no detector '{name}' in the catalogue: {hint} 'reid-edge detector list' shows all.")


def recognised(model: bytes, weights: bytes) -> CatalogueDetector | None:
    """Return the detector whose ``….xml`` and ``….bin`` have these contents; None if the catalogue has none."""
    sizes = len(model), len(weights)
    for detector in catalogue().values():
        for files in detector.files.values():
            if sizes == tuple(file.size for file in files) and all(map(is_right, files, (model, weights))):
                return detector
    return None


def namesake(name: str, input_hw: tuple[int, int]) -> CatalogueDetector | None:
    """Return the detector of which a file of this name and input size is another release; None if there is none."""
    found = catalogue().get(name)
    return found if found is not None and found.input_hw == input_hw else None


def is_right(file: CatalogueFile, content: bytes) -> bool:
    """Tell whether a content is that of a file of the catalogue."""
    return len(content) == file.size and hashlib.sha384(content).hexdigest() == file.sha384


def user_folder() -> Path:
    """Return this user's folder of detectors: ``$XDG_DATA_HOME/reid-edge/detectors``, ``~/.local/share/…`` by default.

    Raises:
        DetectorError: The user has no home folder.
    """
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        return (given if given.is_absolute() else Path.home() / ".local/share") / "reid-edge/detectors"
    except RuntimeError as error:
        raise DetectorError("this user has no home folder: give --to FOLDER, or set XDG_DATA_HOME.") from error


def folders() -> list[Path]:
    """Return the folders in which detectors are looked for: this user's, then the machine's (``$XDG_DATA_DIRS``)."""
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    machine = [Path(part) / "reid-edge/detectors" for part in shared.split(":") if Path(part).is_absolute()]
    try:
        return [user_folder(), *machine]
    except DetectorError:
        return machine


def installed(detector: CatalogueDetector) -> dict[Precision, Path]:
    """Find a detector's ``….xml`` of each precision that is on this machine."""
    found: dict[Precision, Path] = {}
    for precision in (one for one in PRECISIONS if one in detector.files):
        places = (folder / detector.name / detector.files[precision][0].path for folder in folders())
        if place := next((place for place in places if place.is_file()), None):
            found[precision] = place
    return found


def located(detector: CatalogueDetector) -> tuple[Precision, Path]:
    """Return the precision to use and its ``….xml``: of several, the first of :data:`PRECISIONS`.

    Raises:
        DetectorError: It is not on this machine.
    """
    for precision, path in installed(detector).items():
        return precision, path
    raise DetectorError(
        f"the detector {detector.name} is not on this machine (looked in {', '.join(map(str, folders()))}). "
        f"Fetch it first: reid-edge detector get {detector.name}"
    )
