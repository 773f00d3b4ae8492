"""Addresses of streams as people type them, made into such as FFmpeg reads."""

from __future__ import annotations

import re
from urllib.parse import quote

#: Characters that end an address's host, wherever FFmpeg meets them.
_ENDS = re.compile(r"[/?#]")
#: What can follow a user and password: a host, perhaps a port, and then a path or nothing.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/?#@\[\]]+)(?::\d{1,5})?(?:[/?#]|\Z)")
_PORT = re.compile(r"\d{0,5}\Z")
#: What may stand in a user and password as it is; what is encoded already stays.
_SAFE = "%!$&'()*+,;=~:"


def encoded_address(uri: str) -> str:
    """Return a stream's address whose user and password have the characters that no address may have encoded.

    ``rtsp://admin:a#b@camera/1`` becomes ``rtsp://admin:a%23b@camera/1``.  An address that can be read as it stands is
    left as it is.
    """
    scheme, there, rest = uri.partition("://")
    if not there or (end := _end_of_user(rest)) is None:
        return uri
    return f"{scheme}://{quote(rest[:end], safe=_SAFE)}{rest[end:]}"


def unencoded_characters(uri: str) -> str:
    """Return those of ``/``, ``?`` and ``#`` that a user or password has as they are, which few programs understand."""
    rest = uri.partition("://")[2]
    end = _end_of_user(rest)
    return "" if end is None else "".join(dict.fromkeys(_ENDS.findall(rest[:end])))


def _end_of_user(rest: str) -> int | None:
    """Return where the ``@`` stands that ends user and password; None if there are none."""
    before = _ENDS.split(rest, maxsplit=1)[0]
    is_cut = rest[len(before) :].startswith("#")  # a stream has no fragment: '#' is in a password, if '@' follows
    if "@" in before and not is_cut:
        return before.rindex("@")
    port = before.partition(":")[2]
    if not is_cut and (not port or before.startswith("[") or _PORT.match(port)):
        return None  # a host; what follows may have '@' of its own
    ends = [at.start() for at in re.finditer("@", rest) if _HOST.match(rest, at.end())]
    beyond = [end for end in ends if end > len(before)]
    return next(iter(beyond or ends), None)
