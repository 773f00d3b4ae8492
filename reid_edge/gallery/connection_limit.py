"""Who may stay connected: strangers, who have proved nothing yet, are few and soon gone; cameras keep their places."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

#: Most connections of one certificate; a camera needs one, and another while it has not noticed that the first is lost.
MOST_OF_A_NAME = 16
#: Least number of strangers, however few descriptors there are.
_FEW = 8


@dataclass(eq=False)
class Visitor:
    """A connection.

    Attributes:
        address: Peer's address, of IPv6 the network.
        drop: Ends the connection at once.
        name: Common name of its certificate; "" in plain text; None for a stranger.
        idle: It waits for nothing: a request of it can be ended without harm.
    """

    address: str
    drop: Callable[[], object]
    name: str | None = None
    idle: bool = field(default=True)


class Door:
    """Lets visitors in, and shows out another where there are too many; to be used by one thread.

    An attacker who opens connections and says nothing pushes out his own: a camera says who it is within a second.

    Args:
        most: Most connections; a quarter of them may be strangers, half of these of one address.

    Attributes:
        dropped: Number of visitors who were shown out.
    """

    def __init__(self, most: int) -> None:
        self._most_strangers = max(_FEW, most // 4)
        self._most_of_an_address = self._most_strangers // 2
        self._most_guests = max(_FEW, most - self._most_strangers)
        self._strangers: dict[str, OrderedDict[Visitor, None]] = defaultdict(OrderedDict)
        self._guests: dict[str, OrderedDict[Visitor, None]] = defaultdict(OrderedDict)
        self.dropped = 0

    @property
    def strangers(self) -> int:
        """Number of connections that have proved nothing yet."""
        return sum(map(len, self._strangers.values()))

    @property
    def guests(self) -> int:
        """Number of connections that have shown a certificate, or in plain text a whole head of a request."""
        return sum(map(len, self._guests.values()))

    def arrived(self, visitor: Visitor) -> None:
        """Let a stranger in; the one who has waited longest goes if they are too many."""
        same = self._strangers[visitor.address]
        if len(same) >= self._most_of_an_address:
            self._show_out(next(iter(same)))
        elif self.strangers >= self._most_strangers:
            self.make_room()
        self._strangers[visitor.address][visitor] = None

    def make_room(self) -> None:
        """Show out the stranger who has waited longest, of the address with the most."""
        if most := max(self._strangers.values(), key=len, default=None):
            self._show_out(next(iter(most)))

    def introduced(self, visitor: Visitor, name: str) -> None:
        """Take a stranger as a guest; an idle guest goes if they are too many, else he himself."""
        _remove(self._strangers, visitor.address, visitor)
        visitor.name = name
        self._guests[name][visitor] = None
        same = self._guests[name]
        if name and len(same) > MOST_OF_A_NAME:
            self._show_out(_first_idle(same, visitor) or next(iter(same)))
        elif self.guests > self._most_guests:
            crowd = sorted(self._guests.values(), key=len, reverse=True)
            idle = next(filter(None, (_first_idle(some, visitor) for some in crowd)), visitor)
            self._show_out(idle)

    def left(self, visitor: Visitor) -> None:
        """Forget a visitor; one who is not there does no harm."""
        _remove(self._strangers, visitor.address, visitor)
        _remove(self._guests, visitor.name or "", visitor)

    def _show_out(self, visitor: Visitor) -> None:
        self.dropped += 1
        self.left(visitor)
        visitor.drop()


def address_of(peer: object) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, of which a host has all."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    if address.version == 6 and mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(mapped or address)


def _remove(of: dict[str, OrderedDict[Visitor, None]], key: str, visitor: Visitor) -> None:
    if key in of:
        of[key].pop(visitor, None)
        if not of[key]:
            del of[key]


def _first_idle(some: OrderedDict[Visitor, None], but: Visitor) -> Visitor | None:
    return next((each for each in some if each.idle and each is not but), None)
