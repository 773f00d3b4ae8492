"""Removal of passwords from addresses, and from drivers' messages about them, before they are shown or logged.

There are three kinds of address, with a rule for each: from a video stream or pipeline everything that looks secret is
removed (:func:`redacted`); from a gallery's address the password is removed and the user stays, so that the result can
be typed again (:func:`without_passwords`); from an address without a user, everything that may be one is removed
(:func:`without_userinfo`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

# Up to the last '@': people type '@', '/', '#', '?' and '%' in passwords as they are.  Hides too much, not too little.
_USERINFO = re.compile(r"(?P<before>://[^:]*?):(?P<secret>.*)(?P<after>@)", re.DOTALL)
# Without an '@': text in the place of a port that is no number.
_NO_PORT = re.compile(
    r"(?P<before>://(?:\[[^\]]*\]|[^:/@?#\[]*)):(?!\d*(?:[/?#,]|$))(?P<secret>[^@]*)(?P<after>$)", re.DOTALL
)
_OPTION = re.compile(
    r"(?P<before>)[\w.-]*(?:password|passwd|pwd|token|secret)[\w.-]*\s*=(?P<secret>[^&]*)&?(?P<after>)", re.IGNORECASE
)
# To the last @ of a word, since people put @, / and : in passwords without encoding them.
_USER = re.compile(r"([a-zA-Z][\w+.-]*:/*)\S*@")
_SECRET = re.compile(
    r"((?:[?&;]|\b)[\w-]*(?:pass|pwd|pw|user|usr|login|token|key|secret|auth|sig|cred|session)[\w-]*\s*=\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s&;]+)",
    re.IGNORECASE,
)
_ANY_USER = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://)?.*(?:@|%40|\uff20|\ufe6b)", re.DOTALL)
_DELIMITERS = re.compile(r"[\s/#?@:%&=,;+]+")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
#: Shorter parts of a password reveal nothing, and are parts of many words.
_REVEALING = 3


def redacted(uri: str) -> str:
    """Return a stream's URI or a pipeline with user, password, and parameters that look secret replaced by ``***``."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", uri))


def without_userinfo(uri: str) -> str:
    """Return an address with ``***`` for all that may be a user and a password, however oddly they are written."""
    return _ANY_USER.sub(r"\1***@", uri)


def without_passwords(uri: str) -> str:
    """Return an address without the password of its user, and without options that hold one."""
    for pattern in (_USERINFO, _NO_PORT, _OPTION):
        uri = pattern.sub(r"\g<before>\g<after>", uri)
    return uri.rstrip("?&")


def hidden(text: str, uri: str) -> str:
    """Return a driver's message about an address without the passwords that it quotes, whole or in part."""
    parts = sorted({part for secret in _secrets(uri) for part in _parts(secret)}, key=len, reverse=True)
    if not parts:
        return text
    revealing = [re.escape(part) for part in parts if len(part) >= _REVEALING]
    text = text.replace(uri, without_passwords(uri))
    if revealing:
        text = re.sub("|".join(revealing), "***", text)
    shown = without_passwords(uri)
    return _QUOTED.sub(lambda quoted: _without_secret(quoted[0], parts, shown), text)


def _without_secret(quoted: str, parts: list[str], shown: str) -> str:
    """Return a quotation in a message; ``***`` if it may be part of a password, and is not part of the rest."""
    inner = quoted[1:-1]
    return quoted if inner in shown or not any(part in inner for part in parts) else f"{quoted[0]}***{quoted[0]}"


def _secrets(uri: str) -> Iterator[str]:
    for pattern in (_USERINFO, _NO_PORT, _OPTION):
        yield from (match["secret"] for match in pattern.finditer(uri))


def _parts(secret: str) -> Iterator[str]:
    """Yield a secret as it is and as a driver decodes it, and the parts into which a driver may have split it."""
    for whole in (secret, unquote(secret)):
        yield from (part for part in (whole, *_DELIMITERS.split(whole)) if part)
