"""Small generated datasets: people of one colour each, in front of noise."""

from pathlib import Path

import cv2
import numpy as np


def write_people(root: Path, identities: int = 8, images: int = 6, cameras: int = 2) -> Path:
    """``ROOT/train/<identity>/<number>_c<camera>.png``, 24×12 pixels."""
    rng = np.random.default_rng(0)
    for identity in range(1, identities + 1):
        colour = rng.integers(0, 256, 3)
        folder = root / "train" / f"{identity:03d}"
        folder.mkdir(parents=True)
        for number in range(images):
            picture = rng.integers(0, 256, (24, 12, 3))
            picture[4:20, 3:9] = np.clip(colour + rng.integers(-20, 20, 3), 0, 255)
            cv2.imwrite(str(folder / f"{number}_c{number % cameras + 1}.png"), picture.astype(np.uint8))
    return root


def values(root: Path, **more: object) -> dict[str, object]:
    """A run of a second or two on such a folder; keys as ``data__root``."""
    given = {
        "data.dataset": "folder",
        "data.root": str(root),
        "data.partial": True,
        "data.validation": 2,
        "model.width": 0.1,
        "model.size": "24x16",
        "model.variant.blocks": [1, 1, 1],
        "model.variant.streams": [1, 2],
        "schedule.epochs": 3,
        "batch.size": 8,
        "optimiser.learning_rate": 0.01,
        "run.evaluate_every": 1,
        "run.device": "cpu",
        "run.precision": "float32",
    }
    return given | {key.replace("__", "."): value for key, value in more.items()}
