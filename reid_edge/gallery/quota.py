"""Quotas: how much one camera may send in a time, so that none fills the gallery; and names that two cameras use."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from reid_edge.errors import UsageError

#: A camera that was cut off brings what it had to keep meanwhile: so many hours' worth at once.
BURST_HOURS = 10
#: A camera that has gone over its quota, or shares its name, is shown in health for so long.
SHOWN_S = 600.0
#: An outbox that was replaced comes back once at most, in a late message; so many returns within as many seconds
#: are two cameras that take turns.
RETURNS, RETURNING_S = 3, 600.0
_MOST_CAMERAS = 10_000
_MOST_INCARNATIONS = 200


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What one camera may bring in an hour, and ten times that at once.

    Attributes:
        rows: Observations.
        megabytes: Size of their features and fields as stored, 10⁶ bytes.
        gaps: Gaps.
        outboxes: Outboxes (incarnations) that were not known.
        models: Models that the gallery has not accepted.

    Raises:
        UsageError: One of them is not at least 1.
    """

    rows: float = 36_000
    megabytes: float = 150
    gaps: float = 600
    outboxes: float = 60
    models: float = 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 1:  # also refuses what is not a number
                raise UsageError(f"--quota-{field.name} must be at least 1 an hour; got {value:g}.")


class Bucket:
    """Holds what may still be taken; it fills with time."""

    def __init__(self, per_hour: float, now_s: float) -> None:
        self._per_s, self._most = per_hour / 3600, per_hour * BURST_HOURS
        self._left, self._at_s = self._most, now_s

    def take(self, count: float, now_s: float) -> bool:
        """Take all of it or nothing; return True if it was there."""
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if count > self._left:
            return False
        self._left -= count
        return True

    def give_back(self, count: float) -> None:
        """Give back what was not used."""
        self._left = min(self._most, self._left + count)


class Account:
    """Account of one camera: what it may still bring, and the outboxes from which it has.

    Attributes:
        over: Until when it is shown as over its quota, and of what; none at first.
        twins: The two incarnations that take turns, and until when they are shown; None at first.
    """

    def __init__(self, quota: Quota, now_s: float) -> None:
        self.over: dict[str, float] = {}
        self.twins: tuple[str, str, float] | None = None
        self._buckets = {field.name: Bucket(getattr(quota, field.name), now_s) for field in fields(quota)}
        self._incarnations: OrderedDict[str, None] = OrderedDict()
        self._models: OrderedDict[str, None] = OrderedDict()
        self._returns: deque[float] = deque(maxlen=RETURNS)

    def take(self, what: str, count: float, now_s: float) -> bool:
        """Take from a quota; return False, and show it, if there is not so much left."""
        if self._buckets[what].take(count, now_s):
            return True
        self.over[what] = now_s + SHOWN_S
        return False

    def give_back(self, what: str, count: float) -> None:
        """Give back what was taken for something that was not stored."""
        self._buckets[what].give_back(count)

    def comes_from(self, incarnation: str, now_s: float) -> bool:
        """Note the outbox of a batch; return False if the camera has named too many."""
        if incarnation not in self._incarnations:
            if not self.take("outboxes", 1, now_s):
                return False
        elif incarnation != next(reversed(self._incarnations)):
            self._note_return(incarnation, now_s)
        _remember(self._incarnations, incarnation)
        return True

    def names_model(self, model_hash: str, now_s: float) -> bool:
        """Note a model that is not accepted; return False if the camera has named too many."""
        known = model_hash in self._models or self.take("models", 1, now_s)
        if known:
            _remember(self._models, model_hash)
        return known

    def _note_return(self, incarnation: str, now_s: float) -> None:
        self._returns.append(now_s)
        if len(self._returns) == RETURNS and now_s - self._returns[0] < RETURNING_S:
            self.twins = (next(reversed(self._incarnations)), incarnation, now_s + SHOWN_S)


class Accounts:
    """Accounts of all cameras, the ten thousand last seen; to be used by one thread at a time.

    Args:
        quota: What each may bring.
        clock: Returns seconds that only grow.
    """

    def __init__(self, quota: Quota, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.quota = quota
        self.clock = clock
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def of(self, camera: str) -> Account:
        """Return the account of a camera."""
        account = self._accounts.pop(camera, None) or Account(self.quota, self.clock())
        self._accounts[camera] = account
        if len(self._accounts) > _MOST_CAMERAS:
            self._accounts.popitem(last=False)
        return account

    def over(self) -> Iterator[tuple[str, str]]:
        """Yield cameras that were over their quota in the last ten minutes, and of what."""
        now_s = self.clock()
        for camera, account in list(self._accounts.items()):
            for what, until_s in list(account.over.items()):
                if now_s < until_s:
                    yield camera, what

    def twins(self) -> Iterator[tuple[str, str, str]]:
        """Yield names that two cameras had in the last ten minutes, and their outboxes."""
        now_s = self.clock()
        for camera, account in list(self._accounts.items()):
            if account.twins is not None and now_s < account.twins[2]:
                yield camera, *account.twins[:2]


def _remember(names: OrderedDict[str, None], name: str) -> None:
    names[name] = None
    names.move_to_end(name)
    if len(names) > _MOST_INCARNATIONS:
        names.popitem(last=False)
