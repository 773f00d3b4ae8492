"""Which process of a gallery gives tracklets to people as they come: one alone, by a lease in the settings."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable

import msgspec

from reid_edge.errors import PeopleServedError
from reid_edge.gallery.entries import CLOCK_TOLERANCE_US
from reid_edge.gallery.store import Store
from reid_edge.gallery.times import now_us

#: A lease lasts so long, and is renewed so often: whoever was killed is followed by another after the former.
LASTS_US, RENEWED_S = 60_000_000, 20.0
_SETTING = "people/lease"


class _Lease(msgspec.Struct, frozen=True):
    holder: str
    where: str
    until_us: int


class PeopleLease:
    """The right to give tracklets to people; to be used by one thread.

    Two processes that take it at the same moment both have it until the first one renews it.  That does no harm: a
    change of people is stored only if nobody else has changed them.

    Args:
        store: Which gallery.
        clock: Returns the machine's time of day, microseconds since 1970 UTC.
    """

    def __init__(self, store: Store, *, clock: Callable[[], int] = now_us) -> None:
        self._store, self._clock = store, clock
        self._me, self._where = uuid.uuid4().hex, f"process {os.getpid()} on {socket.gethostname()}"
        self._renew_at_s = 0.0

    def take(self) -> None:
        """Take the lease, or renew it when that is due.

        Raises:
            PeopleServedError: Another process has it.
            StoreError: The store fails.
        """
        if time.monotonic() < self._renew_at_s:
            return
        held, now = self._held(), self._clock()
        if held is not None and held.holder != self._me and now < held.until_us <= now + LASTS_US + CLOCK_TOLERANCE_US:
            raise PeopleServedError(
                f"expected one 'serve --people' for this gallery, and {held.where} is another. Start this one without "
                "--people, or stop the other: then this one goes on within a minute."
            )
        lease = _Lease(self._me, self._where, now + LASTS_US)
        self._store.change_settings({_SETTING: msgspec.json.encode(lease).decode()})
        self._renew_at_s = time.monotonic() + RENEWED_S

    def give_back(self) -> None:
        """Let another process have it at once.

        Raises:
            StoreError: The store fails.
        """
        self._renew_at_s = 0.0
        held = self._held()
        if held is not None and held.holder == self._me:
            self._store.change_settings({_SETTING: None})

    def _held(self) -> _Lease | None:
        try:
            return msgspec.json.decode(self._store.settings(_SETTING).get(_SETTING, ""), type=_Lease)
        except msgspec.DecodeError:  # there is none, or it is damaged
            return None
