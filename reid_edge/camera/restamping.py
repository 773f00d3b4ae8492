"""Right times for observations that were made before the camera's clock was set for the first time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from reid_edge.errors import MessageError, OutboxError
from reid_edge.upstream.clocks import is_plausible
from reid_edge.upstream.message import last_seen_us, restamped
from reid_edge.upstream.outbox import Outbox

log = logging.getLogger(__name__)


class Restamping:
    """Moves times of rows of this process that cannot be right to now when they are sent, once it is known what now is.

    A board without a battery begins in 1970, one with a damaged clock perhaps after 2099, and the gallery would refuse
    what it saw until it found a time server.  How far its clock was moved then is how far those times were wrong.  The
    outbox keeps the right times, so that a later process sends them too, also to a gallery that asks for them again.
    What an earlier process left with wrong times stays as it is, also where the outbox could be opened only later:
    numbers that it gives then are above all before.

    Args:
        outbox: As it is before anything is put.
        found_us: Returns what is to be added to times that cannot be right; 0 while that is not known.
    """

    def __init__(self, outbox: Outbox, *, found_us: Callable[[], int]) -> None:
        self._incarnation, self._last_seq = outbox.incarnation, outbox.last_seq
        self._is_known = outbox.is_open
        self._outbox = outbox
        self._found_us = found_us
        self._logged = False

    def __call__(self, incarnation: str, rows: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return rows of an incarnation as they are to be sent."""
        found_us = self._found_us()
        if not found_us:
            return rows
        sent = [(seq, self._amended(data, found_us) if self._is_own(incarnation, seq) else data) for seq, data in rows]
        moved = [new for new, old in zip(sent, rows, strict=True) if new != old]
        if moved and self._outbox.incarnation == incarnation:
            with contextlib.suppress(OutboxError):  # they are sent all the same
                self._outbox.rewrite(moved)
        return sent

    def _is_own(self, incarnation: str, seq: int) -> bool:
        return seq > self._last_seq or (self._is_known and incarnation != self._incarnation)

    def _amended(self, data: bytes, found_us: int) -> bytes:
        try:
            if is_plausible(last_seen_us(data)):
                return data
            right = restamped(data, found_us)
        except MessageError:  # the gallery will refuse it, and say why
            return data
        if not self._logged:
            self._logged = True
            log.info("observations of before the clock was set are sent with times moved by %.0f s", found_us / 1e6)
        return right
