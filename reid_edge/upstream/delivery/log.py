"""What delivery tells a person: statistics, and log lines that a gallery or a network can neither forge nor flood."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reid_edge.foreign_text import one_line
from reid_edge.sparse_log import SparseLog
from reid_edge.wording import counted

#: Problems, refusals and foreign galleries are told apart up to so many kinds.
MOST_KINDS = 16
#: Longest text of a gallery, a broker or a driver that is shown.
LONGEST_SHOWN = 300


def shown(text: str) -> str:
    """Return text that came from elsewhere, on one line and short enough to be shown."""
    return one_line(text, LONGEST_SHOWN)


@dataclass
class DeliveryStats:
    """Counts since the start; they may be read from any thread.

    Attributes:
        batches: Batches handed to the transport.
        sent: Rows handed to the transport for the first time since the start.
        resent: Rows handed to the transport again.
        acknowledged: Rows acknowledged by every gallery that needs them, and given up.
        newest_acknowledged: The highest number of these; 0 for none.
        refused: Rows refused by a gallery, counted each time.
        refused_waiting: Rows that were refused and wait to be tried again.
        last_refusal: The gallery's reason for the last refusal, as it can be shown.
        gaps_acknowledged: Gaps that every gallery has stored.
        bad_acks: Acknowledgements that could not be read, or were for another camera.
        unsent_acks: Acknowledgements of rows that this camera has never made.
        foreign_acks: Acknowledgements of galleries that are not among the camera's; they delete nothing.
        foreign_galleries: Their names, with the number of acknowledgements of each.
        lacking: Rows that other galleries have and this one has not, by gallery; {} with one gallery.
        transport_errors: Batches that the transport did not take.
        internal_errors: Errors that nobody expected; delivery goes on after each.
        last_internal_error: The last of them, for a person.
        last_internal_error_s: Time of the last of them, of the monotonic clock.
        replayed: Rows that wait again because a restored gallery asked for them.
        connected: The transport took the last batch.
        last_error: For a person; "" if the transport took the last batch and the outbox works.
        last_ack_us: Time of the last acknowledgement, microseconds since 1970 UTC.
        oldest_put_s: Time at which the oldest undelivered row was put, of the monotonic clock; None if there is none.
        latencies_s: Seconds from sending a batch to its acknowledgement, of the last thousand.
    """

    batches: int = 0
    sent: int = 0
    resent: int = 0
    acknowledged: int = 0
    newest_acknowledged: int = 0
    refused: int = 0
    refused_waiting: int = 0
    last_refusal: str = ""
    gaps_acknowledged: int = 0
    bad_acks: int = 0
    unsent_acks: int = 0
    foreign_acks: int = 0
    foreign_galleries: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    transport_errors: int = 0
    internal_errors: int = 0
    last_internal_error: str = ""
    last_internal_error_s: float | None = None
    replayed: int = 0
    connected: bool = False
    last_error: str = ""
    last_ack_us: int | None = None
    oldest_put_s: float | None = None
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def oldest_s(self) -> float | None:
        """Age of the oldest undelivered row in seconds, refused ones included; None if there is none."""
        put_s = self.oldest_put_s
        return None if put_s is None else max(0.0, time.monotonic() - put_s)

    def internal_error(self, within_s: float) -> str:
        """Return the last unexpected error if it came within the last ``within_s`` seconds, else ""."""
        at_s = self.last_internal_error_s
        return self.last_internal_error if at_s is not None and time.monotonic() - at_s <= within_s else ""


class DeliveryLog:
    """Logs the problems of a delivery: each kind at most once a minute, and each kind of refusal once.

    Texts that differ in digits alone are of one kind.

    Args:
        log: Receives the lines.
        stats: Receives the texts.
        clock: Returns seconds that only grow.
    """

    def __init__(
        self, log: logging.Logger, stats: DeliveryStats, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._stats = stats
        self._sparse = SparseLog(log, most=MOST_KINDS, clock=clock)
        self._refusals: set[str] = set()

    def problem(self, error: Exception) -> None:
        """Note a failure that is to be expected at times: no network, no room on the disk."""
        self._stats.last_error = text = shown(str(error))
        if self._sparse.admits(_kind(text)) is not None:
            self._log.warning("delivery: %s", text)

    def bug(self, error: Exception, pause_s: float) -> None:
        """Note an error that nobody expected, with where it came from."""
        stats = self._stats
        stats.internal_errors += 1
        stats.last_internal_error = text = shown(f"{type(error).__name__}: {error}")
        stats.last_internal_error_s = time.monotonic()
        stats.last_error = "unexpected error, see the log"
        if self._sparse.admits(f"bug {_kind(text)}") is not None:
            self._log.error(
                "unexpected error in delivery, %d since the start; it goes on in %.0f s",
                stats.internal_errors,
                pause_s,
                exc_info=error,
            )

    def foreign(self, gallery: str, wanted: Sequence[str]) -> None:
        """Note an acknowledgement of a gallery that is not among those that the camera is for."""
        stats, name = self._stats, shown(gallery) or "without a name"
        stats.foreign_acks += 1
        if name in stats.foreign_galleries or len(stats.foreign_galleries) < MOST_KINDS:
            first = name not in stats.foreign_galleries
            stats.foreign_galleries = {**stats.foreign_galleries, name: stats.foreign_galleries.get(name, 0) + 1}
            if first:
                self._log.warning(
                    "gallery '%s' acknowledges observations, but they are for %s: ignored. If it is to have them, add "
                    "its name to upstream.galleries; if not, start its collector with --name, or stop it.",
                    name,
                    ", ".join(wanted),
                )

    def unsent(self, count: int) -> None:
        """Note that rows were acknowledged that were never made."""
        self._stats.unsent_acks += 1
        text = "%s acknowledged that this camera has never made: ignored"
        self._sparse.warning("unsent", text, counted(count, "observation"))

    def refusals(self, reasons: Sequence[str], waiting: int) -> None:
        """Log the kinds of refusal that are new; all are new again once no refused row is ``waiting``."""
        for reason in reasons:
            text = shown(reason)
            if _kind(text) not in self._refusals and len(self._refusals) < MOST_KINDS:
                self._refusals.add(_kind(text))
                self._log.warning(
                    "the gallery refuses observations: %s. Refused rows that wait in the outbox and are tried again: "
                    "%d",
                    text.rstrip("."),
                    waiting,
                )
        if not waiting:
            self._refusals.clear()


def _kind(text: str) -> str:
    return re.sub(r"\d+", "", text)
