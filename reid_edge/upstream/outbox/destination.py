"""The destination of an outbox: the camera whose rows it holds, and the gallery that they are for.

Rows that wait for one gallery must not be emptied into another because a setting was changed, and those of one camera
must not be sent under another's name.
"""

from __future__ import annotations

import glob
import hashlib
import os.path
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from reid_edge.redaction import redacted, without_userinfo

#: Name of the outbox in a camera's state folder; those of its other destinations lie beside it.
OUTBOX = "outbox.db"
#: Schemes of the addresses of galleries, the usual ones first.
SCHEMES = ("mqtts", "https", "sqlite", "postgresql", "milvus", "mqtt", "http")
_TEXT = re.compile(r"camera (\S+) to (\S.*)")
_DEFAULT_PORTS = {"mqtts": "8883", "mqtt": "1883", "https": "8443", "http": "8080", "postgresql": "5432"}
#: Parameters of libpq that say which database it is; the others say how to connect to it.
_PLACES = frozenset({"host", "hostaddr", "port", "dbname", "service"})
_SHORT = "[0-9a-f]" * 8
#: A second file for one destination has another number in its name.
_SECOND = "-" + "[0-9a-f]" * 4


@dataclass(frozen=True)
class Destination:
    """A camera, and the gallery that its rows are for.

    Attributes:
        camera: Name of the camera on the wire.
        gallery: Address of the gallery, as :func:`place` makes it.
    """

    camera: str
    gallery: str

    @classmethod
    def of(cls, camera: str, uri: str) -> Destination:
        """Return the destination of a camera with this upstream address."""
        return cls(camera, place(uri))

    @classmethod
    def parsed(cls, text: str) -> Destination | None:
        """Return the destination that an outbox has noted; None if it has none."""
        found = _TEXT.fullmatch(text)
        return None if found is None else cls(found[1], found[2])

    def __str__(self) -> str:
        """Return it as an outbox notes it."""
        return f"camera {self.camera} to {self.gallery}"


def no_gallery(uri: str) -> str:
    """Return what is wrong with an address that names no kind of gallery; a user or password in it is not shown."""
    shown, hint = without_userinfo(redacted(uri)), ""
    scheme, _, rest = shown.partition(":")
    if rest and scheme.lower() in SCHEMES:
        hint = f" Did you mean {scheme.lower()}:{rest}?"
    elif shown == uri and ":" not in uri and uri not in ("", *SCHEMES):
        hint = f" Did you mean sqlite:{shown}?"
    known = ", ".join(f"{name}:" for name in SCHEMES)
    return f"expected the address of a gallery, one of {known}, got '{shown}'.{hint}"


def place(uri: str) -> str:
    """Return a gallery's address without user, password and what does not tell where it is; paths are absolute."""
    scheme, _, rest = uri.partition(":")
    scheme = "postgresql" if scheme == "postgres" else scheme.lower()
    if scheme == "sqlite" or (scheme == "milvus" and "://" not in rest):
        return f"{scheme}:{os.path.abspath(rest)}"  # noqa: PTH100 - a link may lead elsewhere tomorrow
    before, separator, after = rest.partition("://") if scheme == "milvus" else ("", "//", rest.removeprefix("//"))
    after = without_userinfo(f"x://{after}").removeprefix("x://").removeprefix("***@")  # which may hold / and ?
    address, _, query = after.partition("?")
    host, _, path = address.partition("/")
    host = re.sub(rf":{_DEFAULT_PORTS.get(scheme, '-')}(?=,|$)", "", host.lower())
    kept = urlencode([(key, value) for key, value in parse_qsl(query) if key in _PLACES])
    return f"{scheme}:{before}{separator}{host}{f'/{path}'.rstrip('/')}{f'?{kept}' if kept else ''}"


def beside(outbox: Path, destination: str) -> Path:
    """Return where the file of another destination is kept while ``outbox`` has another."""
    short = hashlib.sha256(destination.encode()).hexdigest()[:8]
    return outbox.with_name(f"{outbox.stem}.{short}{outbox.suffix}")


def files_beside(outbox: Path) -> Iterator[Path]:
    """Yield the files of other destinations that are kept beside an outbox."""
    for more in ("", _SECOND):
        name = f"{glob.escape(outbox.stem)}.{_SHORT}{more}{glob.escape(outbox.suffix)}"
        yield from sorted(outbox.parent.glob(name))
