"""TCP connections with one deadline over everything: the look-up of the name, and every address that it has."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

Address = tuple[int, tuple[object, ...]]

#: Seconds for which the result of a look-up that took too long serves the next call.
_FRESH_S = 60.0


def connected(host: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to the first address of a host that answers.

    Args:
        host: Name or address.
        port: Port.
        timeout_s: Seconds for all of it.

    Returns:
        A connected socket that sends small packets at once.

    Raises:
        OSError: The name is not known, or nobody answers at any of its addresses; TimeoutError: not in time.
    """
    deadline = time.monotonic() + timeout_s
    found = addresses(host, port, timeout_s)
    failure: OSError | None = None
    for index, (family, address) in enumerate(found):
        # A share each, so that an address that swallows everything leaves time for the others.
        share_s = (deadline - time.monotonic()) / (len(found) - index)
        if share_s <= 0:
            break
        try:
            return _dialled(family, address, share_s)
        except OSError as error:
            failure = error
    raise failure or TimeoutError(f"no connection to {host} within {timeout_s:g} s")


def _dialled(family: int, address: tuple[object, ...], timeout_s: float) -> socket.socket:
    with contextlib.ExitStack() as closing:
        dialled = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
        dialled.settimeout(timeout_s)
        dialled.connect(address)
        # Without this a small packet behind another one waits 40 ms for the other end's delayed acknowledgement.
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        closing.pop_all()
        return dialled


class _Lookup(threading.Thread):
    """Looks up a name in a thread, since the system's resolver cannot be told when to give up."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name=f"look-up of {host}", daemon=True)
        self._host, self._port = host, port
        self.addresses: list[Address] = []
        self.failure: OSError | None = None
        self._ended_s = float("inf")

    @property
    def fresh(self) -> bool:
        """True if it goes on, or has ended lately."""
        return time.monotonic() - self._ended_s < _FRESH_S

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
        except OSError as error:
            self.failure = error
        except UnicodeError as error:  # what Python makes of a name that no DNS could hold
            self.failure = OSError(f"{self._host!a} is not a host name: {error}")
        self._ended_s = time.monotonic()


_lookups: dict[tuple[str, int], _Lookup] = {}
_lookups_lock = threading.Lock()


def addresses(host: str, port: int, timeout_s: float) -> list[Address]:
    """Look up a name; one that hangs is waited for again by the next call, so that one thread hangs, not many.

    Args:
        host: Name or address.
        port: Port, which becomes a part of each address.
        timeout_s: Longest wait, seconds.

    Returns:
        Family and socket address of each, in the system's order.

    Raises:
        OSError: The name is not known; TimeoutError: no answer came in time.
    """
    key = (host, port)
    with _lookups_lock:
        lookup = _lookups.get(key)
        if lookup is None or not lookup.fresh:
            lookup = _lookups[key] = _Lookup(host, port)
            lookup.start()
    lookup.join(timeout_s)
    if lookup.is_alive():
        raise TimeoutError(f"the look-up of {host} did not end within {timeout_s:.3g} s: is its DNS server reachable?")
    with _lookups_lock:
        if _lookups.get(key) is lookup:
            del _lookups[key]
    if lookup.failure is not None:
        raise lookup.failure
    return lookup.addresses
