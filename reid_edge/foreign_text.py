"""Text from another machine or a damaged file, made fit to be read, logged and shown."""

from __future__ import annotations

LONGEST = 200


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return text on one line, with control characters escaped, cut to ``longest`` characters.

    Whatever another machine sends can thus neither begin a line of its own in a log, nor steer a terminal.
    """
    shown = "".join(each if each.isprintable() else _escaped(each) for each in " ".join(text[: 4 * longest].split()))
    return shown if len(shown) <= longest and len(text) <= 4 * longest else f"{shown[: longest - 1]}…"


def one_line_of_bytes(data: bytes, longest: int = LONGEST) -> str:
    """Return bytes as :func:`one_line` does text; those that are not UTF-8 are escaped."""
    return one_line(data.decode("utf-8", "backslashreplace"), longest)


def lenient_text(data: bytes) -> str:
    """Return text of a file that may be damaged, as far as it is UTF-8: a checksum will tell of the rest."""
    return data.decode("utf-8", "replace")


def printable(text: str) -> str:
    """Return text with control characters escaped, but for line breaks."""
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
