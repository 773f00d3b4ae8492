"""Lines with a checksum, for small files beside a database: a line is what was written, or nothing."""

from __future__ import annotations

import zlib


def checked_line(text: str) -> bytes:
    """Return a text without line feeds as a line: the CRC-32 of its UTF-8 in hexadecimal, a space, the text."""
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def text_of_line(line: bytes) -> bytes | None:
    """Return the text of a line, in UTF-8; None if it is not as :func:`checked_line` made it."""
    checksum, _, text = line.rstrip().partition(b" ")
    try:
        return text if int(checksum, 16) == zlib.crc32(text) else None
    except ValueError:
        return None
