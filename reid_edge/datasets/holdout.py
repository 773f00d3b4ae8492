"""Hold people out of a train split, for validation on people who are not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reid_edge.datasets.labelled_images import LabelledImage
from reid_edge.errors import DatasetError

#: Camera given to a query whose camera is not known: gallery images of unknown camera (0) then count as another's.
UNKNOWN_QUERY_CAMERA = -1


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A train split in three parts; no identity of ``train`` is in ``query`` or ``gallery``."""

    train: tuple[LabelledImage, ...]
    query: tuple[LabelledImage, ...]
    gallery: tuple[LabelledImage, ...]


def hold_out(images: Sequence[LabelledImage], identities: int) -> HeldOut:
    """Hold out the last identities, in order of number; of a union, as evenly as possible from each member.

    The first image of each identity and camera is a query, as in Market-1501's test split, and all others are the
    gallery.  Where each identity has only one image a camera (VIPeR, GRID), the image of its first camera is the query
    and the others are the gallery.  Images whose camera is not known may match each other, which is easier than a
    match across cameras.

    Args:
        images: A train split, in any order.
        identities: Number of identities to hold out; 0: none.

    Raises:
        DatasetError: Fewer than two identities are left to train on, or no query has a match in the gallery.
    """
    held = _last_of_each(images, identities)
    train = tuple(image for image in images if image.identity not in held)
    left = len({image.identity for image in train})
    if left < 2:
        raise DatasetError(
            f"{identities:,} of {left + len(held):,} identities held out for validation leave {left} to train on; "
            "at least 2 are needed. Hold out fewer (data.validation)."
        )
    query, gallery = _queries_and_gallery(image for image in images if image.identity in held)
    if held:
        _check_matches(query, gallery)
    return HeldOut(train=train, query=query, gallery=gallery)


def first_identities(images: Sequence[LabelledImage], identities: int | None) -> tuple[LabelledImage, ...]:
    """Return the images of the first identities, in order of number.

    Args:
        images: A train split, in any order.
        identities: Number of identities to keep; None: all.

    Raises:
        DatasetError: The images show fewer identities.
    """
    order = sorted({image.identity for image in images})
    if identities is None:
        return tuple(images)
    if identities > len(order):
        raise DatasetError(
            f"{identities:,} identities asked for (data.identities), but there are only {len(order):,}; use fewer."
        )
    kept = set(order[:identities])
    return tuple(image for image in images if image.identity in kept)


def _last_of_each(images: Sequence[LabelledImage], identities: int) -> frozenset[int]:
    """Take the last remaining identity of each member in turn."""
    members: dict[int, set[int]] = {}
    for image in images:
        members.setdefault(image.member, set()).add(image.identity)
    left = [sorted(members[member]) for member in sorted(members)]
    held: set[int] = set()
    while len(held) < identities and any(left):
        for order in left:
            if order and len(held) < identities:
                held.add(order.pop())
    return frozenset(held)


def _queries_and_gallery(
    images: Iterable[LabelledImage],
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    query: dict[tuple[int, int], LabelledImage] = {}
    gallery: list[LabelledImage] = []
    for image in sorted(images, key=lambda image: (image.identity, image.camera, image.path)):
        view = (image.identity, image.camera)
        if view in query:
            gallery.append(image)
        else:
            query[view] = image if image.camera else replace(image, camera=UNKNOWN_QUERY_CAMERA)
    if not gallery:  # one image a view, as in VIPeR: a query is searched for in the other cameras
        first = dict(reversed(query))
        gallery = [image for (identity, camera), image in query.items() if camera != first[identity]]
        query = {view: image for view, image in query.items() if view[1] == first[view[0]]}
    return tuple(query.values()), tuple(gallery)


def _check_matches(query: Sequence[LabelledImage], gallery: Sequence[LabelledImage]) -> None:
    cameras: dict[int, set[int]] = {}
    for image in gallery:
        cameras.setdefault(image.identity, set()).add(image.camera)
    if not any(cameras.get(image.identity, set()) - {image.camera} for image in query):
        raise DatasetError(
            "none of the identities held out for validation can be matched across cameras: they have too few images, "
            "or all are of one camera. Hold out more, or none (--set data.validation=0); or name no cameras, then all "
            "images of a person match."
        )
