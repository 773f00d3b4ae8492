"""Names on the wire: of cameras, and of the incarnations of their outboxes.

A camera's name is also part of an MQTT topic, the common name of a certificate and the name of a folder; hence the few
characters.  It does not begin with a dot, which would hide the folder or lead out of it, nor with a dash, which
commands take for an option.
"""

from __future__ import annotations

import re

from reid_edge.errors import ReidEdgeError

EXPECTED = "1 to 64 letters, digits, '.', '_' or '-', and begin with none of '.' and '-'"
#: Regular expression of a whole name.
PATTERN = r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z"

_NAME = re.compile(PATTERN)
#: The first releases also took names that begin with a dot or a dash.
_STORED_NAME = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")


def checked_wire_name(name: str, what: str, error: type[ReidEdgeError]) -> str:
    """Return a name if it can be on the wire.

    Args:
        name: To be checked.
        what: Called so in the message, e.g. ``camera``.
        error: Raised if it cannot: by whose mistake it is.

    Raises:
        ReidEdgeError: An ``error``: the name has other characters, none, or too many.
    """
    if not _NAME.search(name):
        raise error(f"{what} must be {EXPECTED}; got {name[:80]!a}.")
    return name


def is_wire_name(name: str) -> bool:
    """Return True if a name can be on the wire."""
    return _NAME.search(name) is not None


def checked_stored_name(name: str, what: str, error: type[ReidEdgeError]) -> str:
    """Return a name if a gallery may hold observations under it, which are to be found and erased for ever.

    Raises:
        ReidEdgeError: An ``error``, as of :func:`checked_wire_name`.
    """
    return name if _STORED_NAME.search(name) else checked_wire_name(name, what, error)
