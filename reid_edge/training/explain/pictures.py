"""Pictures for the page and the sheet."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.crops import Image, resize_into
from reid_edge.images import read_image

#: Share of the colours of an activation map in its overlay.
OVERLAY = 0.5
#: Blue and orange, as BGR, that can be seen on white and on black: less, and more.
LESS, MORE = (210, 130, 20), (20, 110, 235)
JPEG_QUALITY = 85


def picture(path: Path, size: tuple[int, int]) -> Image:
    """An image, H×W×3 BGR, resized as the network sees it.

    Raises:
        FrameError: Not a readable image.
    """
    out = np.empty((*size, 3), np.uint8)
    resize_into(read_image(path), out)
    return out


def overlay(image: Image, activations: npt.NDArray[np.float32]) -> Image:
    """An activation map in colours over its image: blue where it is lowest, red where it is highest.

    Args:
        image: H×W×3 BGR.
        activations: h×w, enlarged to H×W; its range in this image is stretched over all colours.
    """
    height, width = image.shape[:2]
    enlarged = np.asarray(cv2.resize(activations, (width, height), interpolation=cv2.INTER_LINEAR))
    low, high = float(enlarged.min()), float(enlarged.max())
    stretched = ((enlarged - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(stretched, cv2.COLORMAP_TURBO)
    return np.asarray(cv2.addWeighted(image, 1 - OVERLAY, colours, OVERLAY, 0), np.uint8)


def difference_picture(difference: npt.NDArray[np.float64], limit: float) -> Image:
    """T×C numbers as T×C×4 pixels, BGR and opacity: blue at −limit, transparent at 0, orange at +limit."""
    share = np.clip(difference / (limit or 1.0), -1, 1)
    out = np.empty((*difference.shape, 4), np.uint8)
    out[..., :3] = np.where((share > 0)[..., None], MORE, LESS)
    out[..., 3] = np.rint(255 * np.abs(share))
    return out


def data_uri(image: Image, *, lossless: bool = False) -> str:
    """An image as an address that holds it: JPEG, or PNG, which keeps opacity."""
    if lossless:
        _, data = cv2.imencode(".png", image)
        return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"
    _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
