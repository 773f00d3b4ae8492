"""Nothing that is shown, logged or written down holds a password: addresses, and what drivers say of them.

Three kinds of address, three rules: of a video stream or pipeline everything that looks secret goes (:func:`redacted`);
of a gallery the password goes and the user stays, so that what is shown can be typed again
(:func:`without_passwords`); where no user belongs, all that may be one goes (:func:`without_userinfo`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

# Up to the last '@': passwords are typed with '@', '/', '#', '?' and '%' as they are.  Hides too much, not too little.
_USERINFO = re.compile(r"(?P<before>://[^:]*?):(?P<secret>.*)(?P<after>@)", re.DOTALL)
# Without an '@', what stands for a port and is no number.
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
#: Shorter parts of a password say nothing, and are parts of many words.
_TELLING = 3


def redacted(uri: str) -> str:
    """A stream's URI or a pipeline with user, password, and parameters that look secret, replaced by ``***``."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", uri))


def without_userinfo(uri: str) -> str:
    """An address to show: ``***`` for all that may be a user and a password, however oddly they are written."""
    return _ANY_USER.sub(r"\1***@", uri)


def without_passwords(uri: str) -> str:
    """An address that can be shown: without the password of its user, and without options that hold one."""
    for pattern in (_USERINFO, _NO_PORT, _OPTION):
        uri = pattern.sub(r"\g<before>\g<after>", uri)
    return uri.rstrip("?&")


def hidden(text: str, uri: str) -> str:
    """A driver's message about an address, without what it quotes of its passwords, whole or in part."""
    parts = sorted({part for secret in _secrets(uri) for part in _parts(secret)}, key=len, reverse=True)
    if not parts:
        return text
    telling = [re.escape(part) for part in parts if len(part) >= _TELLING]
    text = text.replace(uri, without_passwords(uri))
    if telling:
        text = re.sub("|".join(telling), "***", text)
    shown = without_passwords(uri)
    return _QUOTED.sub(lambda quoted: _judged(quoted[0], parts, shown), text)


def _judged(quoted: str, parts: list[str], shown: str) -> str:
    """What a message quotes, unless it may be of a password and is not of the rest of the address."""
    inner = quoted[1:-1]
    return quoted if inner in shown or not any(part in inner for part in parts) else f"{quoted[0]}***{quoted[0]}"


def _secrets(uri: str) -> Iterator[str]:
    for pattern in (_USERINFO, _NO_PORT, _OPTION):
        yield from (match["secret"] for match in pattern.finditer(uri))


def _parts(secret: str) -> Iterator[str]:
    """A secret as it is and as a driver decodes it, and the parts into which one may have torn it."""
    for whole in (secret, unquote(secret)):
        yield from (part for part in (whole, *_DELIMITERS.split(whole)) if part)
