"""A video of people-shaped, textured things that walk across a street: drawn, so that its truth is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE_WH = (480, 360)
FPS = 20
#: Frames before the first walker, for the background to be learned.
STILL = 10


#: Shirt and trousers, BGR.
CLOTHES = [((30, 30, 220), (120, 60, 20)), ((60, 190, 40), (20, 20, 20)), ((230, 120, 20), (190, 200, 210))]


def walker(number: int) -> np.ndarray:
    """110×44×3 uint8: head, shirt, trousers, each a little uneven."""
    shirt, trousers = CLOTHES[number % len(CLOTHES)]
    person = np.empty((110, 44, 3), np.int16)
    person[:22], person[22:62], person[62:] = (120, 150, 200), shirt, trousers
    uneven = np.random.default_rng(number).integers(-30, 31, (22, 11, 3)).repeat(5, 0).repeat(4, 1)
    return np.clip(person + uneven, 0, 255).astype(np.uint8)


def outline(height: int = 110, width: int = 44) -> np.ndarray:
    """H×W booleans: the pixels of the head, body, arms and legs of somebody who walks."""
    shape = np.zeros((110, 44), np.uint8)
    cv2.circle(shape, (22, 10), 10, 1, -1)
    shape[18:66, 12:32] = 1
    for end in ((3, 60), (40, 60)):
        cv2.line(shape, (22, 26), end, 1, 7)
    for end in ((7, 106), (36, 106)):
        cv2.line(shape, (22, 60), end, 1, 8)
    return cv2.resize(shape, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def street_frames(frames: int, walkers: int = 3) -> list[np.ndarray]:
    """Walkers cross one below the other, each at its own speed, and come back."""
    ground = np.random.default_rng(0).integers(90, 120, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
    ground = cv2.GaussianBlur(ground, (9, 9), 0)
    pictures = []
    for number in range(frames):
        picture = ground.copy()
        for seed in range(walkers if number >= STILL else 0):
            person = walker(seed)
            x = int((number - STILL) * (3 + seed)) % (SIZE_WH[0] - person.shape[1])
            y = 5 + seed * 118
            picture[y : y + person.shape[0], x : x + person.shape[1]][outline()] = person[outline()]
        pictures.append(picture)
    return pictures


def write_street(path: Path, frames: int = 60, walkers: int = 3) -> Path:
    """The video as MJPEG in AVI."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, SIZE_WH)
    for picture in street_frames(frames, walkers):
        writer.write(picture)
    writer.release()
    return path
