"""``reid-edge gallery search`` and ``erase``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_edge.cli.csv_tables import CsvOption, check_csv, write_csv
from reid_edge.cli.file_positions import FilePositions
from reid_edge.cli.gallery_options import (
    CameraOption,
    FileStartOption,
    JsonOption,
    KeyOption,
    PurposeOption,
    SinceOption,
    StoreArgument,
    UntilOption,
    UtcOption,
    opened,
    print_json,
    selection_of,
    stored_record,
)
from reid_edge.cli.search_answer import SEARCH_COLUMNS, csv_fields, found_fields, notes, print_found
from reid_edge.cli.shared_options import TrustedKeyOption
from reid_edge.console import console, say
from reid_edge.errors import UsageError
from reid_edge.gallery import search as searching
from reid_edge.gallery.audit import checked_purpose
from reid_edge.gallery.ranking import ranking_for
from reid_edge.gallery.store import Store
from reid_edge.gallery.times import now_us
from reid_edge.identity.calibration import FALSE_MATCH_RATE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from reid_edge.bundle import Bundle
    from reid_edge.runtime.extractor import Extractor


def search(
    store: StoreArgument,
    purpose: PurposeOption,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Picture of the person. May be repeated: the mean of several pictures finds more."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="Part of the picture: x1,y1,x2,y2 in pixels; all of it if not given. With several pictures, one each."
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle that the cameras use; needed with --image.")] = None,
    trusted_key: TrustedKeyOption = None,
    id_: Annotated[
        list[str] | None,
        typer.Option("--id", help="Stored observation to search for: CAMERA/EPOCH/NUMBER. May be repeated."),
    ] = None,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    same_camera: Annotated[bool, typer.Option("--same-camera", help="Search only the camera of --id.")] = False,
    other_cameras: Annotated[
        bool, typer.Option("--other-cameras", help="Search all cameras but that of --id.")
    ] = False,
    top: Annotated[int, typer.Option(help="Largest number of tracklets to list.")] = 10,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="List first what shares neighbours with the person searched for.")
    ] = False,
    false_match_rate: Annotated[
        float, typer.Option(help="Largest share of strangers that may be called the same person.")
    ] = FALSE_MATCH_RATE,
    plain: Annotated[
        bool, typer.Option("--plain", help="Exact order of the cosines: no centring, no re-ranking, no verdict.")
    ] = False,
    pseudonym_key: KeyOption = None,
    file_start: FileStartOption = None,
    csv_: CsvOption = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the tracklets most similar to a picture or a stored observation. The audit records every search."""
    purpose = checked_purpose(purpose)
    check_csv(csv_)
    if same_camera and other_cameras:
        raise UsageError("give --same-camera or --other-cameras, not both.")
    cameras: searching.Cameras = "same" if same_camera else "other" if other_cameras else "all"
    selection = selection_of(camera, since, until, pseudonym_key)
    if plain and rerank:
        raise UsageError("give --rerank or --plain, not both.")
    opened_bundle = None if bundle is None else _opened_bundle(bundle, trusted_key or ())
    positions = FilePositions(file_start)
    with opened(store) as gallery:
        query = _query(
            gallery, images=image or (), boxes=box or (), bundle=opened_bundle, ids=id_ or (), key=pseudonym_key
        )
        now = now_us()
        ranking = (
            None
            if plain
            else ranking_for(gallery, query.model_hash, now_us=now, rerank=rerank, false_match_rate=false_match_rate)
        )
        found = searching.search(
            gallery, query, selection=selection, purpose=purpose, now_us=now, top=top, cameras=cameras, ranking=ranking
        )
    named = ", ".join([*map(str, image or ()), *(id_ or ())])
    if csv_ is not None or as_json:
        if csv_ is not None:
            write_csv(csv_, SEARCH_COLUMNS, [csv_fields(one, positions) for one in found], what="tracklet")
        else:
            print_json([found_fields(one, positions) for one in found])
        if ranking is not None and ranking.trouble:
            say(f"warning: {ranking.trouble}")
    else:
        print_found(found, named, positions, utc=utc)
        for note in notes(gallery.name, found, ranking) if found else ():
            console.print(note, soft_wrap=True)


def _query(
    store: Store,
    *,
    images: Sequence[Path],
    boxes: Sequence[str],
    bundle: Bundle | None,
    ids: Sequence[str],
    key: Path | None,
) -> searching.Query:
    """Return the query that the options describe.

    Raises:
        UsageError: There is neither an image with its bundle nor an id, or not one box for each picture.
        ModelMismatchError: The gallery holds no features of the bundle's model, or the queries are of several.
        NoSuchObservationError: Nothing is stored under an id.
    """
    if bool(images) != (bundle is not None) or not (images or ids):
        raise UsageError("give --image FILE and --bundle FOLDER, or --id ID.")
    if boxes and len(boxes) != len(images):
        raise UsageError(f"give one --box for each --image, or none; got {len(boxes)} for {len(images)}.")
    queries = [searching.query_of(stored_record(store, name, key)) for name in ids]
    if bundle is not None:
        queries += _queries_by_images(store, images, boxes, bundle)
    return searching.joined_query(queries)


def _opened_bundle(path: Path, trusted_keys: Sequence[str]) -> Bundle:
    from reid_edge.bundle import open_bundle

    return open_bundle(path, trusted_keys=trusted_keys)


def _queries_by_images(
    store: Store, images: Sequence[Path], boxes: Sequence[str], bundle: Bundle
) -> list[searching.Query]:
    from reid_edge.runtime.extractor import Extractor

    searching.require_model(store, bundle.manifest.model_hash)
    read = [_Picture.read(image, boxes[place] if boxes else None) for place, image in enumerate(images)]
    extractor = Extractor(bundle)
    return [picture.query(extractor, bundle.manifest.model_hash) for picture in read]


@dataclasses.dataclass(frozen=True)
class _Picture:
    """A picture to search for: its pixels, the part that is looked at, and the digest of its file for the audit."""

    pixels: npt.NDArray[np.uint8]
    box: list[float] | None
    sha256: str

    @classmethod
    def read(cls, image: Path, box: str | None) -> _Picture:
        from reid_edge.images import decoded_image

        part = None if box is None else _box(box)
        if not image.exists():
            raise UsageError(f"--image {image}: there is no such file; give the path of a picture.")
        content = _content(image)  # once: the audit names the picture that was searched for
        pixels = decoded_image(content, image)
        _check_box(part, (pixels.shape[1], pixels.shape[0]))
        return cls(pixels, part, hashlib.sha256(content).hexdigest())

    def query(self, extractor: Extractor, model_hash: str) -> searching.Query:
        features = extractor([self.pixels]) if self.box is None else extractor(self.pixels, [self.box])
        return searching.query_by_feature(features[0], model_hash, image_sha256=self.sha256, box=self.box)


def _content(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise UsageError(f"--image {image} cannot be read: {error.strerror}.") from error


def _box(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise UsageError(f"expected --box x1,y1,x2,y2 in pixels; got '{text}'.")
    return numbers


def _check_box(box: Sequence[float] | None, size_wh: tuple[int, int]) -> None:
    """Refuse a box that is no part of the picture, and note one that hardly shows one person.

    Raises:
        UsageError: Its corners are fractions, in the wrong order, or outside the picture.
    """
    width, height = size_wh
    if box is None:
        if width > height:
            say(f"note: the whole {width}x{height} picture is searched for as one person; --box cuts one out.")
        return
    left, top, right, bottom = box
    if max(map(abs, box)) <= 1:
        pixels = ",".join(f"{round(part * side)}" for part, side in zip(box, (*size_wh, *size_wh), strict=True))
        raise UsageError(f"--box takes pixels of the {width}x{height} picture, not fractions: --box {pixels}")
    if not (left < right and top < bottom):
        raise UsageError(f"--box takes two corners, x1,y1,x2,y2 with x1 < x2 and y1 < y2; got {_joined(box)}.")
    if not (left < width and top < height and right > 0 and bottom > 0):
        raise UsageError(f"--box {_joined(box)} lies outside the {width}x{height} picture.")
    if min(left, top) < 0 or right > width or bottom > height:
        say(f"note: --box {_joined(box)} reaches beyond the {width}x{height} picture; what lies outside is left out.")
    if right - left > bottom - top:
        say("note: --box is wider than high; it should show one whole person.")


def _joined(box: Sequence[float]) -> str:
    return ",".join(f"{part:g}" for part in box)
