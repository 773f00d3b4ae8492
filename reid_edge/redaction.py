"""Removal of passwords from addresses, and from drivers' messages about them, before they are shown or logged.

There are three kinds of address, with a rule for each: from a video stream or pipeline everything that looks secret is
removed (:func:`redacted`); from a gallery's address the password is removed and the user stays, so that the result can
be typed again (:func:`without_passwords`); from an address without a user, everything that may be one is removed
(:func:`without_userinfo`).

People write passwords as they are, with blanks, quotes, ``@``, ``/``, ``#`` or ``&``, so that an address may be read in
several ways.  Whatever may be secret in any of them is removed: up to the last ``@``, and from the first name of a
secret on; of a pipeline, and of options of a database, only what is known to be no secret is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/*")
_PIPELINE = "gst:"
#: Names of values that are secret, whole, and parts of such names.
_SECRET_NAMES = re.compile(
    r"(?:p|pw|pwd|psw|psd|pin|pass|passwd|u|usr|user|id|uid|acct|account|key|sig|sid|otp|jwt|code|auth|hash|nonce)\Z"
)
_SECRET_PARTS = re.compile(
    r"passw|passphrase|passcode|pwd|psw|user|usr|login|token|secret|auth|bearer|cookie|session|cred|sign|apikey"
    r"|(?:^|[_-])(?:pass|pw|pin|key|sig|id)$|^(?:pass|pw|pin)(?:[_-]|$)"
)
# What may be the name of a value: a word before '=', which may be encoded, at the start or after what is no letter.
_NAMED = re.compile(r"(?P<name>(?:(?!%3[Dd])[\w%.-])+)\s*(?:=|%3[Dd])")
_AT = re.compile(r"@|%40|\uff20|\ufe6b|\u2100", re.IGNORECASE)
# Text in the place of a port that is no number: a password without its host.
_NO_PORT = re.compile(r"(?:\[[^\]]*\]|[^:/?#\[]*):(?!\d*(?:[/?#,]|\Z))")
_ANY_USER = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://)?.*(?:@|%40|\uff20|\ufe6b)", re.DOTALL)
#: Parameters of libpq, and ours, that are no secrets.
_PUBLIC_OPTIONS = re.compile(
    r"(?:host|hostaddr|port|dbname|user|connect_timeout|client_encoding|(?:fallback_)?application_name|keepalives"
    r"|keepalives_(?:idle|interval|count)|tcp_user_timeout|gssencmode|sslmode|sslcompression|sslcert|sslkey|sslcrl"
    r"|sslcrldir|sslsni|sslrootcert|sslnegotiation|sslcertmode|ssl_(?:min|max)_protocol_version|requirepeer|krbsrvname"
    r"|gsslib|service|target_session_attrs|load_balance_hosts|channel_binding|require_auth|passfile|others_may_read)\Z"
)
_PUBLIC_VALUE = re.compile(r"[\w./:,@+-]*\Z", re.ASCII)
_DSN_WORD = re.compile(r"\s*(?P<name>\w+)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)(?=\s|\Z)", re.DOTALL)
_LIBPQ_WORDS = re.compile(rf"\s*(?:password|{_PUBLIC_OPTIONS.pattern[:-2]})\s*=")
#: Parts of a pipeline that are no secrets: elements and pads, types, properties with numbers and words like these.
_ELEMENT = re.compile(r"[a-z][a-z0-9_-]*[.]?\Z|[a-z]\w*\.(?:src|sink)\w*\Z")
_CAPS = re.compile(
    r"(?:video|audio|image|application)/x?-?[\w.+-]+(?:\(memory:\w+\))?(?:,[\w-]+=(?:\(\w+\))?[\w./-]+)*,?\Z"
)
_PROPERTY = re.compile(r"(?P<name>[a-z][\w:.-]*)=(?P<value>.*)\Z", re.DOTALL)
_OPEN_VALUE = re.compile(r"\A([a-z][\w:.-]*=(?:[A-Za-z][A-Za-z0-9+.-]*:/*)?).*\Z", re.DOTALL)
_PLAIN_VALUE = re.compile(r"\d{1,2}\Z")  # of any property; a PIN is longer
_PUBLIC_PROPERTIES = re.compile(
    r"(?:name|caps|format|protocols|drop|sync|latency|device|buffer-mode|ntp-sync|leaky|async|emit-signals|do-timestamp|is-live|method|mode"
    r"|quality|profile|pattern|width|height|framerate|timeout|tcp-timeout|retry|port|pbkeylen|bitrate|buffer-size"
    r"|blocksize|num-buffers|max-buffers|max-bytes|max-time|max-size-(?:buffers|bytes|time)|max-rate)\Z"
)
_SHORT_WORD = re.compile(r"[\w.:/+-]{1,40}\Z", re.ASCII)
_ADDRESS_PROPERTIES = frozenset({"location", "uri"})
_DELIMITERS = re.compile(r"[\s/#?@:%&=,;+'\"\\!]+")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
#: Users with passwords in addresses, and headers, anywhere in a text.
_USER_IN_TEXT = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)(?!\*\*\*@)[^\s/@]*:[^\s@]*@")
_HEADER_IN_TEXT = re.compile(
    r"(authorization\W{1,4}(?:(?:bearer|basic|digest)\W{1,2})?|\bbearer\\?\s+)(?!\*\*\*)[^\s'\"]{4,}", re.IGNORECASE
)
_USER_NAME = re.compile(r"(?:.*[_-])?(?:usr|user(?:[_-]?(?:id|name))?|login|u|id|uid|account|acct)\Z", re.IGNORECASE)
_NEXT_OPTION = re.compile(r"&(?=[\w%.-]+=)|'\s|'\Z|\s(?=\w+\s*=)")
_remembered: set[str] = set()
#: Parts of a remembered secret are removed from logs from this length on; shorter ones are parts of words there.
_LEAST_IN_LOGS = 6
#: Shorter parts of a password reveal nothing, and are parts of many words.
_REVEALING = 3


def redacted(uri: str) -> str:
    """Return a stream's URI or a pipeline with user, password, and parameters that look secret replaced by ``***``."""
    if uri.startswith(_PIPELINE) or (_SCHEME.match(uri) is None and re.search(r"\s!\s|=", uri)):
        return _redacted_pipeline(uri)
    return _redacted_address(uri)


def without_userinfo(uri: str) -> str:
    """Return an address with ``***`` for all that may be a user and a password, however oddly they are written."""
    return _ANY_USER.sub(rf"\1{HIDDEN}@", _redacted_address(uri))


def without_passwords(uri: str) -> str:
    """Return an address without the password of its user, and without options that hold one."""
    if _LIBPQ_WORDS.match(uri):
        return _shown_words(uri)
    scheme, there, rest = uri.partition("://")
    if not there:
        return uri
    secret = _first_secret(rest)
    if secret is not None and _AT.search(rest, secret):
        return f"{scheme}://{HIDDEN}"  # a password with '?' or '/', or an option with '@': the host may be either
    userinfo, at, tail = rest.rpartition("@")
    user = userinfo.partition(":")[0]
    if not at and (port := _NO_PORT.match(tail)):
        return f"{scheme}://{tail[: port.end() - 1]}"
    place, _, query = tail.partition("?")
    place = place.partition("#")[0]
    if (inside := _first_secret(place)) is not None:
        place = place[:inside].rpartition("=")[0]
    kept = "&".join(option for option in query.split("&") if _is_public(*_halves(option)))
    return f"{scheme}://{user}{at}{place}{'?' if kept else ''}{kept}".rstrip("?&")


def hidden(text: str, uri: str) -> str:
    """Return a driver's message about an address without the passwords that it quotes, whole or in part."""
    shown = without_passwords(uri)
    parts = [part for part in _DELIMITERS.split(f"{uri} {unquote(uri)}") if part and part not in shown]
    text = masked(text.replace(uri, shown), _secrets(uri), public=shown)
    return _QUOTED.sub(lambda quoted: _without_secret(quoted[0], parts, shown), text)


def masked(text: str, secrets: Iterable[str], *, public: str = "", least: int = _REVEALING) -> str:
    """Return text with ``***`` for every part of a secret, of ``least`` characters or more, that is not public too."""
    marked = bytearray(len(text))
    for secret in secrets:
        size = min(least, len(secret)) or 1
        for start in range(len(secret) - size + 1):
            part = secret[start : start + size]
            place = -1 if len(part) < _REVEALING or part in public else text.find(part)
            while place >= 0:
                marked[place : place + size] = b"x" * size
                place = text.find(part, place + 1)
    if not any(marked):
        return text
    return "".join(_unmasked(text, marked))


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name is one that only its owner should know, or names its owner."""
    plain = unquote(name).lower().lstrip("-")
    return _SECRET_NAMES.match(plain) is not None or _SECRET_PARTS.search(plain) is not None


def remember(address: str) -> None:
    """Keep the secrets of an address out of every log line from now on, whoever writes it."""
    if redacted(address) == without_passwords(address) == address:
        return
    for secret in _passwords(address):
        if len(secret) >= _REVEALING:
            _remembered.update((secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]))


def scrubbed(text: str) -> str:
    """Return text without remembered secrets, and without what is known by its form: users in addresses, headers."""
    text = masked(text, _remembered, least=_LEAST_IN_LOGS)
    text = _USER_IN_TEXT.sub(rf"\1{HIDDEN}@", text)
    return _HEADER_IN_TEXT.sub(rf"\1{HIDDEN}", text)


def _redacted_address(uri: str) -> str:
    match = _SCHEME.match(uri)
    start, rest = (match[0], uri[match.end() :]) if match else ("", uri)
    if not match and (":" not in rest or not _AT.search(rest)):
        return uri  # a path
    ats = [*_AT.finditer(rest)]
    secret = _first_secret(rest)
    if secret is not None and ats and ats[-1].start() >= secret:
        return f"{start}{HIDDEN}"  # a password with '?' or '/', or a parameter with '@': the host may be either
    shown = rest if secret is None else f"{rest[:secret]}{HIDDEN}"
    if ats:
        shown = f"{HIDDEN}@{shown[ats[-1].end() :]}"
    elif port := _NO_PORT.match(shown):
        shown = f"{shown[: port.end()]}{HIDDEN}"
    return f"{start}{shown}"


def _first_secret(text: str) -> int | None:
    """Return where the value of the first secret of a text begins."""
    for match in _NAMED.finditer(text):
        # 'stream=0_user=admin': any part of the name may be the name, as may what its encoding stands for.
        names = [match["name"], *re.split(r"[^A-Za-z0-9-]+", unquote(match["name"]))]
        if any(is_secret_name(name) for name in names if name):
            return match.end()
    return None


def _redacted_pipeline(pipeline: str) -> str:
    prefix = _PIPELINE if pipeline.startswith(_PIPELINE) else ""
    shown: list[str] = []
    first = True
    for word in _words(pipeline[len(prefix) :]):
        shown.append(word if word == "!" else _shown_word(word, first=first))
        if shown[-1] == HIDDEN and len(shown) > 1:  # maybe the rest of the word before, whose blank nobody quoted
            shown[-2] = _OPEN_VALUE.sub(rf"\1{HIDDEN}", shown[-2])
        first = word == "!"
    return prefix + " ".join(shown)


def _words(pipeline: str) -> Iterator[str]:
    """Yield the words of a pipeline; blanks within quotes and after a backslash are part of a word."""
    for match in re.finditer(r'(?:"(?:[^"\\]|\\.)*(?:"|\Z)|\\.|[^\s"\\]|\\\Z)+', pipeline, re.DOTALL):
        yield match[0]


def _shown_word(word: str, *, first: bool) -> str:
    if (first and _ELEMENT.match(word)) or _CAPS.match(word):
        return word
    found = _PROPERTY.match(word)
    if found is None:
        return HIDDEN
    name, value = found["name"], found["value"]
    inner = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if name in _ADDRESS_PROPERTIES and _SCHEME.match(inner):
        address = _redacted_address(inner)
        return f'{name}="{address}"' if inner != value else f"{name}={address}"
    if is_secret_name(name):
        return f"{name}={HIDDEN}"
    public = _PUBLIC_PROPERTIES.match(name) and (_SHORT_WORD.match(inner) or _CAPS.match(inner))
    return word if _PLAIN_VALUE.match(inner) or public else f"{name}={HIDDEN}"


def _shown_words(dsn: str) -> str:
    """Return the words of libpq's form ``key=value key='value'`` that are no secrets."""
    shown, place = [], 0
    while match := _DSN_WORD.match(dsn, place):
        if _is_public(match["name"], match["value"].strip("'")):
            shown.append(match[0].strip())
        elif is_secret_name(match["name"]) and not match["value"].startswith("'"):
            break  # it may have blanks that nobody quoted: all that follows may be part of it
        place = match.end()
    return " ".join(shown)


def _halves(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name, value


def _is_public(name: str, value: str) -> bool:
    return _PUBLIC_OPTIONS.match(name) is not None and _PUBLIC_VALUE.match(unquote(value)) is not None


def _without_secret(quoted: str, parts: list[str], shown: str) -> str:
    """Return a quotation in a message; ``***`` if it may be part of a password, and is not part of the rest."""
    inner = quoted[1:-1]
    return quoted if inner in shown or not any(part in inner for part in parts) else f"{quoted[0]}{HIDDEN}{quoted[0]}"


def _unmasked(text: str, marked: bytearray) -> Iterator[str]:
    """Yield the characters that are not marked, and ``***`` for each run of those that are."""
    before = 0
    for character, mark in zip(text, marked, strict=True):
        if not mark:
            yield character
        elif not before:
            yield HIDDEN
        before = mark


def _passwords(address: str) -> Iterator[str]:
    """Yield the passwords of an address or pipeline as their author meant them, as they are and decoded."""
    if address.startswith(_PIPELINE):
        for found in filter(None, map(_PROPERTY.match, _words(address.removeprefix(_PIPELINE)))):
            name, value = found["name"], found["value"].strip('"')
            if _SCHEME.match(value):
                yield from _passwords(value)
            elif not _USER_NAME.match(name) and _redacted_pipeline(f"{name}={value}") != f"{name}={value}":
                yield from (value, re.sub(r"\\(.)", r"\1", value))
        return
    rest = "" if _LIBPQ_WORDS.match(address) else address.partition("://")[2]
    values = [rest.rpartition("@")[0].partition(":")[2]] if rest else []
    for match in _NAMED.finditer(rest or address):
        if is_secret_name(match["name"]) and not _USER_NAME.match(match["name"]):
            value = (rest or address)[match.end() :]
            values.append(_NEXT_OPTION.split(value)[0].strip("'"))
    for secret in values:
        yield from dict.fromkeys((secret, unquote(secret)))


def _secrets(uri: str) -> Iterator[str]:
    """Yield what an address may hold of passwords, whole, as it is and as a driver decodes it."""
    rest = (not _LIBPQ_WORDS.match(uri) and uri.partition("://")[2]) or uri
    userinfo, at, _ = rest.rpartition("@")
    port = None if at else _NO_PORT.match(rest)
    values = [rest[match.end() :] for match in _NAMED.finditer(rest) if is_secret_name(match["name"])]
    for secret in (userinfo.partition(":")[2], rest[port.end() :] if port else "", *values):
        yield from dict.fromkeys((secret, unquote(secret)))
