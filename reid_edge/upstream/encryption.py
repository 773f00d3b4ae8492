"""The rule that every address passes before it is opened: encrypted to a verified server, or on this machine alone."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Sequence

from reid_edge.errors import SettingsError

LOG = logging.getLogger(__name__)

#: In a database's address, the words by which somebody owns what an unverified connection risks.
OWNED_RISK = "others_may_read=yes"
_OWNED_RISK = re.compile(rf"(?P<before>[?&\s]){OWNED_RISK}(?P<after>[&\s]|\Z)")


def check_encrypted(
    shown: str, hosts: Sequence[str], *, verified: bool, loopback: bool, owned: bool = False, way_out: str
) -> None:
    """Refuse an address to which features and names would go for others to read.

    Args:
        shown: The address, without secrets, for messages.
        hosts: Every host that it may lead to.
        verified: The connection is encrypted, and the server has to prove its name.
        loopback: Without that, it is allowed on loopback.
        owned: Somebody owns the risk off loopback, in words.
        way_out: What to do, for a person.

    Raises:
        SettingsError: It is not allowed.
    """
    if verified or (loopback and all(is_loopback(host) for host in hosts)):
        return
    if not owned:
        raise SettingsError(f"{shown} would send features unencrypted, or to an unidentified server. {way_out}")
    LOG.warning("%s: others on the network may read and alter features and names ('%s')", shown, OWNED_RISK)


def is_loopback(host: str) -> bool:
    """Return whether packets to this host stay on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_owned_risk(address: str) -> tuple[str, bool]:
    """Return a database's address without the words ``others_may_read=yes``, and whether it had them."""
    found = _OWNED_RISK.search(address)
    if found is None:
        return address, False
    before, after = address[: found.start()], address[found.end() :]
    joint = found["before"] if after else ""
    return f"{before}{joint}{after}", True
