"""From what a person types to what a gallery understands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reid_edge.errors import NoSuchObservationError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.entries import Record, Selection
from reid_edge.gallery.retention import now_us
from reid_edge.gallery.search import Cameras, Query, find_one, query_by_feature, query_of, require_model
from reid_edge.gallery.store import Store, open_store
from reid_edge.gallery.times import parse_time
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from reid_edge.wire_names import checked_wire_name

if TYPE_CHECKING:
    from reid_edge.upstream.tls import TlsFiles


#: A year: longer is no retention.
MOST_HOURS = 8784.0


@contextlib.contextmanager
def opened(uri: str, *, create: bool = False) -> Iterator[Store]:
    """A store, closed afterwards."""
    store = open_store(uri, create=create)
    try:
        yield store
    finally:
        store.close()


def tls_files(ca: Path | None, cert: Path | None, key: Path | None, crl: Path | None) -> TlsFiles | None:
    """Certificates, or None for none.

    Raises:
        UsageError: Some are given, some are missing.
    """
    if ca is None and cert is None and key is None and crl is None:
        return None
    if ca is None or cert is None or key is None:
        raise UsageError("give --ca, --cert and --key together.")
    from reid_edge.upstream.tls import TlsFiles

    return TlsFiles(ca=ca, cert=cert, key=key, crl=crl)


def keep_for(store: Store, hours: float | None) -> None:
    """Change the retention, if that is asked for, and say so in the audit."""
    if hours is None or hours == store.retention_hours():
        return
    if not 0 < hours <= MOST_HOURS:  # also what is not a number
        raise UsageError(f"--retention-hours is more than 0, and at most {MOST_HOURS:g}: a year.")
    audit.record(store, "retention", {"hours": hours, "before": store.retention_hours()}, at_us=now_us())
    store.set_retention_hours(hours)


def accept(store: Store, model_hash: str) -> None:
    """Take features of one more model, and say so in the audit.

    Raises:
        UsageError: Not a model hash.
    """
    if len(model_hash) != 64 or set(model_hash) - set("0123456789abcdef"):
        raise UsageError(f"a model hash is 64 hexadecimal digits, as 'reid-edge inspect' shows it; got '{model_hash}'.")
    audit.record(store, "accept-model", {"model_hash": model_hash}, at_us=now_us())
    store.accept_model(model_hash, None, now_us=now_us())


def selection_of(
    cameras: Sequence[str] | None,
    since: str | None,
    until: str | None,
    key: Path | None,
    *,
    track: int | None = None,
    epoch: str | None = None,
) -> Selection:
    """What ``--camera``, ``--since``, ``--until``, ``--track`` and ``--epoch`` mean.

    Raises:
        UsageError: A time that cannot be read, or an order that cannot be.
    """
    now = now_us()
    chosen = Selection(
        cameras=tuple(dict.fromkeys(_on_the_wire(name, key) for name in cameras or ())),
        epoch=None if epoch is None else checked_wire_name(epoch, "epoch", UsageError),
        track=track,
        since_us=None if since is None else parse_time(since, now_us=now),
        until_us=None if until is None else parse_time(until, now_us=now),
    )
    if chosen.since_us is not None and chosen.until_us is not None and chosen.since_us > chosen.until_us:
        raise UsageError(f"--since {since} is later than --until {until}.")
    if track is not None and len(chosen.cameras) != 1:
        raise UsageError("--track needs one --camera: each camera counts its own tracklets.")
    return chosen


def which_cameras(*, same: bool, other: bool) -> Cameras:
    """What ``--same-camera`` and ``--other-cameras`` mean.

    Raises:
        UsageError: Both are given.
    """
    if same and other:
        raise UsageError("give --same-camera or --other-cameras, not both.")
    return "same" if same else "other" if other else "all"


def stored(store: Store, id_: str, key: Path | None) -> Record:
    """The observation of an id, whose camera may be a name if there is the key of its pseudonym."""
    try:
        return find_one(store, id_)
    except NoSuchObservationError:
        if key is None:
            raise
    name, slash, rest = id_.partition("/")
    return find_one(store, f"{_on_the_wire(name, key)}{slash}{rest}")


def query(
    store: Store, *, image: Path | None, box: str | None, bundle: Path | None, id_: str | None, key: Path | None
) -> Query:
    """What to look for.

    Raises:
        UsageError: Neither an image with its bundle nor an id, or both.
        ModelMismatchError: The gallery holds no features of the bundle's model.
        NoSuchObservationError: Nothing is stored under the id.
    """
    if id_ is not None and image is None and bundle is None and box is None:
        return query_of(stored(store, id_, key))
    if id_ is None and image is not None and bundle is not None:
        return _query_by_image(store, image, box, bundle)
    raise UsageError("give --image FILE and --bundle FOLDER, or --id ID.")


def _query_by_image(store: Store, image: Path, box: str | None, bundle: Path) -> Query:
    from reid_edge.bundle import open_bundle, sha256_of
    from reid_edge.images import read_image
    from reid_edge.runtime.extractor import Extractor

    manifest = open_bundle(bundle).manifest
    require_model(store, manifest.model_hash)
    boxes = None if box is None else [_box(box)]
    if not image.exists():
        raise UsageError(f"--image {image}: there is no such file; give the path of a picture.")
    pixels = read_image(image)
    extractor = Extractor(bundle)
    features = extractor([pixels]) if boxes is None else extractor(pixels, boxes)
    return query_by_feature(features[0], manifest.model_hash, image_sha256=sha256_of(image))


def _box(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise UsageError(f"--box takes x1,y1,x2,y2 in pixels, got '{text}'.")
    return numbers


def _on_the_wire(name: str, key: Path | None) -> str:
    """A camera's pseudonym, if there is a key for it."""
    if key is None:
        return checked_wire_name(name, "camera", UsageError)
    if not key.is_file():
        raise UsageError(f"no key at {key}; --pseudonym-key is the file that the cameras' settings name.")
    return camera_pseudonym(name, load_or_create_key(key))
