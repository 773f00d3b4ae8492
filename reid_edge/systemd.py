"""Messages to systemd over its notification socket (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Report a state to systemd, e.g. ``READY=1`` or ``WATCHDOG=1``; does nothing if no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:  # no reason for a service to stop
        log.debug("systemd does not listen at %s: %s", address, error)


def watchdog_interval_s() -> float | None:
    """Return the seconds between two ``WATCHDOG=1``, half of what systemd allows; None without a watchdog."""
    allowed = os.environ.get("WATCHDOG_USEC")
    if not allowed or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(allowed) / 2e6
