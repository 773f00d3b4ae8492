"""Limits of the HTTP server's connections: those that have not shown who they are make room for those that have."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

#: Most connections of one certificate; a camera needs one, and another while it has not noticed that the first is lost.
MOST_OF_A_NAME = 16
#: Least number of unidentified connections, however few descriptors there are.
_FEW = 8


@dataclass(eq=False)
class Peer:
    """The other end of a connection.

    Attributes:
        address: Its address, of IPv6 the network.
        drop: Ends the connection at once.
        name: Common name of its certificate; "" in plain text; None as long as it has not shown who it is.
        idle: It waits for no answer: its connection can be closed without harm.
    """

    address: str
    drop: Callable[[], object]
    name: str | None = None
    idle: bool = field(default=True)


class ConnectionLimit:
    """Keeps the number of connections within its bounds by closing some; to be used by one thread.

    A connection is unidentified until it has shown a certificate, or in plain text the whole head of a request.  If
    an attacker opens connections and sends nothing, his own are closed: a camera identifies itself within a second.

    Args:
        most: Most connections; a quarter of them may be unidentified, and half of these from one address.

    Attributes:
        dropped: Number of connections that were closed for others.
    """

    def __init__(self, most: int) -> None:
        self._most_unidentified = max(_FEW, most // 4)
        self._most_of_an_address = self._most_unidentified // 2
        self._most_identified = max(_FEW, most - self._most_unidentified)
        self._unidentified: dict[str, OrderedDict[Peer, None]] = defaultdict(OrderedDict)
        self._identified: dict[str, OrderedDict[Peer, None]] = defaultdict(OrderedDict)
        self.dropped = 0

    @property
    def unidentified(self) -> int:
        """Number of connections that are not identified yet."""
        return sum(map(len, self._unidentified.values()))

    @property
    def identified(self) -> int:
        """Number of connections that are identified."""
        return sum(map(len, self._identified.values()))

    def add(self, peer: Peer) -> None:
        """Count a new connection; the oldest unidentified one is closed if there are too many of them."""
        same = self._unidentified[peer.address]
        if len(same) >= self._most_of_an_address:
            self._drop(next(iter(same)))
        elif self.unidentified >= self._most_unidentified:
            self.drop_oldest()
        self._unidentified[peer.address][peer] = None

    def drop_oldest(self) -> None:
        """Close the oldest unidentified connection, of the address with the most."""
        if most := max(self._unidentified.values(), key=len, default=None):
            self._drop(next(iter(most)))

    def identify(self, peer: Peer, name: str) -> None:
        """Count a connection as identified; an idle one is closed if there are too many of them, or else this one."""
        _take_out(self._unidentified, peer.address, peer)
        peer.name = name
        self._identified[name][peer] = None
        same = self._identified[name]
        if name and len(same) > MOST_OF_A_NAME:
            self._drop(_first_idle(same, peer) or next(iter(same)))
        elif self.identified > self._most_identified:
            crowd = sorted(self._identified.values(), key=len, reverse=True)
            idle = next(filter(None, (_first_idle(some, peer) for some in crowd)), peer)
            self._drop(idle)

    def remove(self, peer: Peer) -> None:
        """Count a closed connection no longer; one that is not counted does no harm."""
        _take_out(self._unidentified, peer.address, peer)
        _take_out(self._identified, peer.name or "", peer)

    def _drop(self, peer: Peer) -> None:
        self.dropped += 1
        self.remove(peer)
        peer.drop()


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


def _take_out(of: dict[str, OrderedDict[Peer, None]], key: str, peer: Peer) -> None:
    if key in of:
        of[key].pop(peer, None)
        if not of[key]:
            del of[key]


def _first_idle(some: OrderedDict[Peer, None], but: Peer) -> Peer | None:
    return next((each for each in some if each.idle and each is not but), None)
