"""Names that two cameras have used, kept in the gallery, so that its commands can report them."""

from __future__ import annotations

import msgspec

from reid_edge.errors import StoreError
from reid_edge.gallery.store import Store

_PREFIX = "twins/"
#: They are told of for so long after they were last seen.
TOLD_US = 24 * 3600 * 1_000_000
#: One that is still there is written again so often.
AGAIN_US = 3600 * 1_000_000


class Twins(msgspec.Struct, frozen=True):
    """Two cameras under one name.

    Attributes:
        camera: The name.
        first: Incarnation of the outbox of one.
        second: Incarnation of the other's.
        seen_us: When this was last noticed, microseconds since 1970 UTC.
    """

    camera: str
    first: str
    second: str
    seen_us: int

    def __str__(self) -> str:
        return (
            f"two cameras seem to have the name '{self.camera}': observations arrive in turn from the outboxes "
            f"{self.first} and {self.second}. Give one of them another name (camera.name) and a certificate of its "
            "own, and restart it"
        )


class TwinsRecord:
    """Writes twins into a gallery, not more often than once an hour for each name.

    Args:
        store: The gallery.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: dict[str, int] = {}

    def write(self, twins: list[Twins]) -> None:
        """Write those that are new; a store that fails is asked again the next time."""
        new = [one for one in twins if one.seen_us - self._written.get(one.camera, 0) > AGAIN_US]
        if not new:
            return
        try:
            old = {_PREFIX + one.camera: None for one in _stored(self._store) if _is_old(one, new[0].seen_us)}
            fresh = {_PREFIX + one.camera: msgspec.json.encode(one).decode() for one in new}
            self._store.change_settings({**old, **fresh})
        except StoreError:  # which health tells of
            return
        self._written.update({one.camera: one.seen_us for one in new})


def known_twins(store: Store, now_us: int) -> list[Twins]:
    """Return the names that two cameras have had within a day.

    Raises:
        StoreError: The store cannot be read.
    """
    return [one for one in _stored(store) if not _is_old(one, now_us)]


def _stored(store: Store) -> list[Twins]:
    found = []
    for text in store.settings(_PREFIX).values():
        try:
            found.append(msgspec.json.decode(text, type=Twins))
        except msgspec.DecodeError:  # of a later release
            continue
    return found


def _is_old(twins: Twins, now_us: int) -> bool:
    return now_us - twins.seen_us > TOLD_US
