"""The gallery's idea of the time, on machines whose clock cannot be trusted.

A clock that is days ahead for a moment must delete nothing, and one that is behind must refuse nothing for ever.  So a
gallery counts the time itself, with the kernel's count since the boot, which nobody sets, and keeps the count in its
store.  The machine's time of day is believed at once where it agrees with that count, or
where the count lies after 2099.  Where it does not (it was set;
the machine was off, or a snapshot of it was resumed), it is believed

* when cameras on other machines send what they have just seen, stamped near it, for 15 minutes in which it is not set,
  and more of them than have stamped near the count;
* or when it has run for 24 hours without being set and no camera has contradicted it;
* or when a person says that it is right.

Until then both are possible: what both would delete is deleted, and what either takes for the present is taken.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import msgspec

from reid_edge.errors import StoreError
from reid_edge.gallery.entries import CLOCK_TOLERANCE_US, Selection
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.chain import UNREADABLE
from reid_edge.gallery.times import duration_text, now_us, time_text
from reid_edge.upstream.clocks import IMPLAUSIBLE_US, STEADY_US, STEP_US, Reading, read_clocks

#: A clock that nobody confirms is believed after it has run for so long without being set.
ALONE_US = 24 * 3600 * 1_000_000
#: A camera's observation that is stamped so near a time supports it.
NEAR_US = 15 * 60 * 1_000_000
#: A doubt of less delays the deletion by no more than that, and is not worth a warning.
WORTH_TELLING_US = 3600 * 1_000_000
#: Correction of a slow clock that is applied to the erasures that were made under it.
MOST_CORRECTION_US = 3600 * 1_000_000

_HOUR_US = 3600 * 1_000_000
_SETTING = "clock/"
#: Most boots whose counts are kept.
_MOST_BOOTS = 8


@dataclass(frozen=True)
class Moment:
    """One moment, by two clocks.

    Attributes:
        wall_us: The machine's time of day, microseconds since 1970 UTC.
        believed_us: The gallery's own count.
    """

    wall_us: int
    believed_us: int

    @property
    def earliest_us(self) -> int:
        """The earlier of the two: what is too old by it may be deleted."""
        return min(self.wall_us, self.believed_us)

    @property
    def latest_us(self) -> int:
        """The later of the two: what is too old by it is not shown any more."""
        return max(self.wall_us, self.believed_us)


@dataclass(frozen=True)
class ClockState:
    """The part of a gallery's clock that its store keeps, for each boot of a machine.

    Attributes:
        boot: Names the boot.
        boot_us: Microseconds since that boot, at the last reading.
        wall_us: The machine's time of day then.
        believed_us: The gallery's own count then.
        steady_us: Running time for which the time of day had not been set; while in doubt it goes on over boots.
    """

    boot: str
    boot_us: int
    wall_us: int
    believed_us: int
    steady_us: int = 0

    @property
    def apart_us(self) -> int:
        """Time by which the machine's clock is ahead of the count; negative if it is behind."""
        return self.wall_us - self.believed_us

    @property
    def in_doubt(self) -> bool:
        """Whether the machine's clock and the count disagree by more than clocks usually do."""
        return abs(self.apart_us) > CLOCK_TOLERANCE_US


def advanced(state: ClockState, reading: Reading) -> ClockState:
    """Return the state at a later reading.

    Args:
        state: At an earlier reading, maybe of another boot; time between two boots is not counted.
        reading: The machine's clocks now.
    """
    same = state.boot == reading.boot and reading.boot_us >= state.boot_us
    passed_us = reading.boot_us - state.boot_us if same else 0
    moved_us = reading.wall_us - state.wall_us - passed_us
    was_set = abs(moved_us) > STEP_US if same else moved_us < -STEP_US or not state.in_doubt
    believed_us = state.believed_us + passed_us
    steady_us = 0 if was_set else state.steady_us + passed_us
    agrees = abs(reading.wall_us - believed_us) <= CLOCK_TOLERANCE_US and steady_us >= STEADY_US
    if agrees or believed_us >= IMPLAUSIBLE_US > reading.wall_us:
        believed_us = reading.wall_us
    return ClockState(reading.boot, reading.boot_us, reading.wall_us, believed_us, steady_us)


class GalleryClock:
    """The clock of a gallery; may be used from several threads.

    Args:
        store: Which gallery; its settings keep the count.
        wall: Returns the machine's time of day, microseconds since 1970 UTC.
        read: Reads the machine's clocks; their time of day is replaced by ``wall``.

    Raises:
        StoreError: The store fails.
    """

    def __init__(
        self, store: Store, *, wall: Callable[[], int] = now_us, read: Callable[[], Reading] = read_clocks
    ) -> None:
        self._store = store
        self._wall = wall
        self._read = read
        self._lock = threading.Lock()
        self._heard: dict[str, bool] = {}
        self._state = advanced(self._stored() or self._first(), self._reading())

    @property
    def boot(self) -> str:
        """The boot of this machine."""
        return self._state.boot

    @property
    def trouble(self) -> str:
        """The reason why deletion waits, for a person; empty if it does not."""
        state = self._state
        apart_us = state.apart_us
        if abs(apart_us) <= WORTH_TELLING_US:
            return ""
        direction = "ahead of" if apart_us > 0 else "behind"
        return (
            f"this machine's clock ({time_text(state.wall_us, utc=True)}) is {duration_text(abs(apart_us))} "
            f"{direction} the time that has passed for this gallery: what only one of the two takes for older than the "
            "retention is not deleted until cameras confirm the clock, or it has run for 24 hours without being set; "
            f"if it is right: reid-edge gallery expire {self._store.name} --clock-is-right; if not, set it"
        )

    def now(self) -> Moment:
        """Return this moment."""
        with self._lock:
            state = advanced(self._state, self._reading())
        return Moment(state.wall_us, state.believed_us)

    def heard(self, camera: str, newest_us: int) -> None:
        """Take note of the time stamp of the newest observation that has just come from a camera on another machine."""
        moment = self.now()
        from_wall_us = abs(newest_us - moment.wall_us)
        from_count_us = abs(newest_us - moment.believed_us)
        if min(from_wall_us, from_count_us) <= NEAR_US:
            with self._lock:
                self._heard[camera] = from_wall_us < from_count_us

    def tick(self) -> Moment:
        """Believe the time of day if that is justified, correct erasures, and keep the count; return this moment.

        To be called every minute or so.

        Raises:
            StoreError: The store fails.
        """
        with self._lock:
            before = self._latest_known()
            state = advanced(before, self._reading())
            if state.steady_us < before.steady_us:  # it was set: what was heard was about another time
                self._heard.clear()
            self._correct_erasures(before, state)
            self._keep(state, believing=self._justified(state))
            return Moment(state.wall_us, self._state.believed_us)

    def believe(self) -> Moment:
        """Believe the time of day, since a person says that it is right."""
        with self._lock:
            before = self._latest_known()
            state = advanced(before, self._reading())
            self._correct_erasures(before, state)
            self._keep(state, believing=True)
            return Moment(state.wall_us, state.wall_us)

    def _reading(self) -> Reading:
        return replace(self._read(), wall_us=self._wall())

    def _latest_known(self) -> ClockState:
        """Return the state of this process, or of another on this machine that has kept a later one."""
        stored = self._stored(self._state.boot)
        return stored if stored is not None and stored.boot_us > self._state.boot_us else self._state

    def _justified(self, state: ClockState) -> bool:
        if not state.in_doubt:
            self._heard.clear()
            return False
        for_it = sum(self._heard.values())
        against = len(self._heard) - for_it
        if for_it > against:
            return state.steady_us >= STEADY_US
        return not self._heard and state.steady_us >= ALONE_US

    def _correct_erasures(self, before: ClockState, state: ClockState) -> None:
        """Lengthen what was erased under a clock that turns out to have been slow by so much."""
        if before.boot != state.boot:
            return
        slow_us = state.wall_us - before.wall_us - (state.boot_us - before.boot_us)
        if not STEP_US < slow_us <= MOST_CORRECTION_US:
            return
        corrected = [
            replace(erasure, selection=replace(erasure.selection, until_us=erasure.until_us + slow_us))
            for erasure in self._store.erasures()
            if erasure.boot == state.boot and erasure.until_us >= erasure.made_us
        ]
        if corrected:
            self._store.apply_erasures(corrected)

    def _keep(self, state: ClockState, *, believing: bool) -> None:
        """Keep the state; the count is the time of day from now on if that is believed."""
        state = replace(state, believed_us=state.wall_us) if believing else state
        values: dict[str, str | None] = {_SETTING + state.boot: msgspec.json.encode(asdict(state)).decode()}
        others = [one for one in _states(self._store) if one.boot != state.boot]
        others.sort(key=lambda one: -one.believed_us)
        refuted = [one for one in others if believing and one.believed_us > state.believed_us + CLOCK_TOLERANCE_US]
        for old in (*others[_MOST_BOOTS:], *refuted):
            values[_SETTING + old.boot] = None
        self._store.change_settings(values)
        self._state = state

    def _stored(self, boot: str | None = None) -> ClockState | None:
        """Return the state that the store keeps of a boot; if None, of this one, or else that which is furthest on."""
        states = {state.boot: state for state in _states(self._store)}
        if boot is not None:
            return states.get(boot)
        return states.get(self._read().boot) or max(states.values(), key=lambda one: one.believed_us, default=None)

    def _first(self) -> ClockState:
        """Return the state of a gallery that has kept none: the time of the newest thing that it holds, if any."""
        reading = self._reading()
        last_us = self._store.span(Selection()).last_us
        newest_us = [] if last_us is None else [last_us]
        with contextlib.suppress(StoreError):  # a role in PostgreSQL that may not read the audit
            newest_us += [line.at_us for line in self._store.audit_entries(1) if line.action != UNREADABLE]
        return ClockState(reading.boot, reading.boot_us, reading.wall_us, max(newest_us, default=reading.wall_us))


def _states(store: Store) -> list[ClockState]:
    """Return the usable states of a store: one that is damaged, or counts from after 2099, is as good as none."""
    states = []
    for text in store.settings(_SETTING).values():
        try:
            states.append(msgspec.json.decode(text, type=ClockState))
        except msgspec.DecodeError:
            continue
    return [state for state in states if state.believed_us < IMPLAUSIBLE_US]


def latest_us(store: Store, wall_us: int) -> int:
    """Return the latest time that it may be: the machine's, or the gallery's own count if that is further on.

    Args:
        store: Which gallery.
        wall_us: The machine's time of day.
    """
    return max([wall_us, *(state.believed_us for state in _states(store))])


def kept_since_us(store: Store, wall_us: int) -> int:
    """Return the time before which an observation is too old to be shown, whether it is deleted yet or not."""
    return latest_us(store, wall_us) - int(store.retention_hours() * _HOUR_US)


def aging_us(store: Store, wall_us: int) -> int:
    """Return the time before which an observation was last seen more than half of the retention ago."""
    return latest_us(store, wall_us) - int(store.retention_hours() * _HOUR_US / 2)
