"""Two kinds of trouble that show only over several connections: a name that two clients use, and messages too large."""

from __future__ import annotations

import time
from collections.abc import Collection

from reid_edge.backoff import PERMANENT_S, exponential_pause_s

#: Connections in a row that ended with the same message unconfirmed before its size is taken for the cause.
_ENDINGS = 2
#: Connections in a row that the broker dropped soon after they were made before a rival is taken for the cause; soon is
#: within so many seconds, or so many times the pause before, since the rival may have made as long a pause.
_DROPS = 4
_SOON_S = 60.0
_SOON_PAUSES = 3.0
#: Seconds for which a rivalry is told after the last loss, at least; and as a multiple of the pause after it.
_TOLD_S = 600.0
_TOLD_PAUSES = 3.0


class SilentSizeLimit:
    """Finds out that a broker ends connections for the size of a message, which many do without a word.

    A broker that does not take a message ends the connection again and again while that message is the first that
    it has not confirmed.
    """

    def __init__(self) -> None:
        self._endings = 0
        self._confirmed = 0

    @property
    def suspected(self) -> bool:
        """True if the last connection may have ended for the size of a message."""
        return self._endings > 0

    def confirmed(self, size: int) -> None:
        """Note that the broker has taken a message of this size."""
        self._confirmed = max(self._confirmed, size)

    def ended(self, unconfirmed: Collection[int], *, certain: bool) -> int:
        """Note the end of a connection.

        Args:
            unconfirmed: Sizes of the messages that the broker had not confirmed.
            certain: The broker has said that a message was too large.

        Returns:
            The size that is to blame, or 0 if there is no reason to blame any.
        """
        largest = max(unconfirmed, default=0)
        self._endings = self._endings + 1 if largest > self._confirmed else 0
        self._confirmed = 0
        return largest if certain or self._endings >= _ENDINGS else 0


class Rivalry:
    """Two clients with one name, each of which the broker disconnects when the other connects.

    Some brokers say so; mosquitto before 2.0.12 closes the connection without a word, so that several connections in a
    row which end so, soon after they were made, are taken for a rivalry.  Each loss lengthens the pause before the next
    attempt, so that the two do not fight; it is told until none has come for some time.

    Args:
        name: Name of this client at the broker.
        uri: Address of the broker.
        way_out: What to do about it, for a person.
    """

    def __init__(self, name: str, uri: str, way_out: str) -> None:
        self._fact = f"connects to {uri} as '{name}', and the broker serves only the last: {way_out}"
        self._told = ""
        self._drops = self._losses = 0
        self._pause_s = self._until_s = 0.0

    @property
    def problem(self) -> str:
        """What is the case and what to do; empty once it has passed."""
        return self._told if time.monotonic() < self._until_s else ""

    def ended(self, lasted_s: float, *, taken_over: bool, dropped: bool) -> float:
        """Note the end of a connection; returns the seconds to wait on account of a rival, 0 if there is none.

        Args:
            lasted_s: Seconds from its beginning.
            taken_over: The broker said that another client has connected under this one's name.
            dropped: The broker ended it without a word.
        """
        self._drops = self._drops + 1 if dropped and lasted_s < max(_SOON_S, _SOON_PAUSES * self._pause_s) else 0
        if not taken_over and self._drops < _DROPS:
            return 0.0
        self._losses = self._losses + 1 if self.problem else 1
        self._told = f"another client {'' if taken_over else 'probably '}{self._fact}"
        self._pause_s = exponential_pause_s(self._losses - 1, *PERMANENT_S)
        self._until_s = time.monotonic() + max(_TOLD_S, _TOLD_PAUSES * self._pause_s)
        return self._pause_s
