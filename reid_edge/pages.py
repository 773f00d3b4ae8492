"""Pages of HTML that hold all that they show: pictures as data URIs, their style, no network access."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import cv2

from reid_edge.types import Image

if TYPE_CHECKING:
    import jinja2

JPEG_QUALITY = 85


def page_template(package: str, **filters: Callable[..., object]) -> jinja2.Template:
    """Return the template ``page.html.j2`` of a package; an undefined name in it is an error, and values are escaped.

    Args:
        package: Name of the package.
        filters: Functions that the template applies, by name.

    Raises:
        ModuleNotFoundError: Jinja is not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    return environment.from_string(page_asset(package, "page.html.j2"))


def page_asset(package: str, name: str) -> str:
    """Return the text of a file beside a package's modules."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def jpeg(image: Image, *, quality: int = JPEG_QUALITY) -> bytes:
    """Encode an image, H×W×3 uint8 BGR, as JPEG."""
    return cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def jpeg_uri(data: bytes) -> str:
    """Return a JPEG file as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def data_uri(image: Image, *, lossless: bool = False) -> str:
    """Encode an image as a data URI: JPEG, or PNG, which keeps opacity."""
    if lossless:
        _, data = cv2.imencode(".png", image)
        return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"
    return jpeg_uri(jpeg(image))
