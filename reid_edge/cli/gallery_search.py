"""``reid-edge gallery search`` and ``erase``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    short_id,
    stored_record,
)
from reid_edge.cli.shared_options import TrustedKeyOption
from reid_edge.console import console, print_table, say
from reid_edge.errors import UsageError
from reid_edge.gallery import search as searching
from reid_edge.gallery.audit import checked_purpose
from reid_edge.gallery.store import Store
from reid_edge.gallery.times import duration_text, now_us, time_text

if TYPE_CHECKING:
    from reid_edge.bundle import Bundle

MOST_CAMERAS_NAMED = 20
WHAT_A_COSINE_MEANS = (
    "A cosine sorts: 1 is the same picture. It is no probability: different people often reach 0.7 and more, and the "
    "first one is only the most similar person that is stored. Look at the video before you believe it."
)


def search(
    store: StoreArgument,
    purpose: PurposeOption,
    image: Annotated[Path | None, typer.Option(help="Picture of the person.")] = None,
    box: Annotated[
        str | None, typer.Option(help="Part of the picture: x1,y1,x2,y2 in pixels; all of it if not given.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle that the cameras use; needed with --image.")] = None,
    trusted_key: TrustedKeyOption = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Stored observation to search for: CAMERA/EPOCH/NUMBER.")
    ] = None,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    same_camera: Annotated[bool, typer.Option("--same-camera", help="Search only the camera of --id.")] = False,
    other_cameras: Annotated[
        bool, typer.Option("--other-cameras", help="Search all cameras but that of --id.")
    ] = False,
    top: Annotated[int, typer.Option(help="Largest number of tracklets to list.")] = 10,
    pseudonym_key: KeyOption = None,
    file_start: FileStartOption = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the tracklets most similar to a picture or a stored observation. The audit records every search."""
    purpose = checked_purpose(purpose)
    if same_camera and other_cameras:
        raise UsageError("give --same-camera or --other-cameras, not both.")
    cameras: searching.Cameras = "same" if same_camera else "other" if other_cameras else "all"
    selection = selection_of(camera, since, until, pseudonym_key)
    opened_bundle = None if bundle is None else _opened_bundle(bundle, trusted_key or ())
    positions = FilePositions(file_start)
    with opened(store) as gallery:
        query = _query(gallery, image=image, box=box, bundle=opened_bundle, id_=id_, key=pseudonym_key)
        found = searching.search(
            gallery, query, selection=selection, purpose=purpose, now_us=now_us(), top=top, cameras=cameras
        )
    if as_json:
        print_json([_found_fields(one, positions) for one in found])
    else:
        _print_found(found, id_ or str(image), positions, utc=utc)


def _query(
    store: Store, *, image: Path | None, box: str | None, bundle: Bundle | None, id_: str | None, key: Path | None
) -> searching.Query:
    """Return the query that the options describe.

    Raises:
        UsageError: There is neither an image with its bundle nor an id, or both.
        ModelMismatchError: The gallery holds no features of the bundle's model.
        NoSuchObservationError: Nothing is stored under the id.
    """
    if id_ is not None and image is None and bundle is None and box is None:
        return searching.query_of(stored_record(store, id_, key))
    if id_ is None and image is not None and bundle is not None:
        return _query_by_image(store, image, box, bundle)
    raise UsageError("give --image FILE and --bundle FOLDER, or --id ID.")


def _opened_bundle(path: Path, trusted_keys: Sequence[str]) -> Bundle:
    from reid_edge.bundle import open_bundle

    return open_bundle(path, trusted_keys=trusted_keys)


def _query_by_image(store: Store, image: Path, box: str | None, bundle: Bundle) -> searching.Query:
    from reid_edge.images import decoded_image
    from reid_edge.runtime.extractor import Extractor

    manifest = bundle.manifest
    searching.require_model(store, manifest.model_hash)
    boxes = None if box is None else [_box(box)]
    if not image.exists():
        raise UsageError(f"--image {image}: there is no such file; give the path of a picture.")
    content = _content(image)  # once: the audit names the picture that was searched for
    pixels = decoded_image(content, image)
    _check_box(None if boxes is None else boxes[0], (pixels.shape[1], pixels.shape[0]))
    extractor = Extractor(bundle)
    features = extractor([pixels]) if boxes is None else extractor(pixels, boxes)
    box_given = None if boxes is None else boxes[0]
    sha256 = hashlib.sha256(content).hexdigest()
    return searching.query_by_feature(features[0], manifest.model_hash, image_sha256=sha256, box=box_given)


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


def _found_fields(found: searching.Found, positions: FilePositions) -> dict[str, Any]:
    best = found.best
    key = {"camera": best.camera, "epoch": best.incarnation, "seq": best.seq}
    seen = {name: value for name, value in dataclasses.asdict(best).items() if name != "incarnation"}
    times: dict[str, Any] = {"first_us": found.first_us, "last_us": found.last_us}
    if (position := positions.of(best, found.first_us)) is not None:
        times |= {"position_s": position.seconds, "file": position.file}
    return {"id": best.id, "cosine": round(found.cosine, 6), **key, **seen, **times}


def _print_found(found: Sequence[searching.Found], named: str, positions: FilePositions, *, utc: bool) -> None:
    """Print tracklets, best first."""
    if not found:
        console.print("nothing found: no other tracklet of these cameras and that time is held", soft_wrap=True)
        return
    places = [positions.of(one.best, one.first_us) for one in found]
    rows = [
        [
            f"{one.cosine:.3f}",
            str(one.best.track),
            time_text(one.first_us, utc=utc),
            *([str(place or "")] if any(places) else []),
            duration_text(one.last_us - one.first_us),
            short_id(one.best),
        ]
        for one, place in zip(found, places, strict=True)
    ]
    position = ["in the file"] if any(places) else []
    print_table(f"nearest to {named}", ["cosine", "track", "first seen", *position, "for", "id"], rows, whole=True)
    console.print(WHAT_A_COSINE_MEANS, soft_wrap=True)
