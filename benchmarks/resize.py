"""Resize rules: closeness to an anti-aliased bilinear resize, and time.

    pip install pillow && python benchmarks/resize.py FOLDER_OF_PHOTOGRAPHS

Crops of several sizes are cut at random from photographs of at least 1000×420; PIL's bilinear, which averages when it
shrinks, is the reference.
"""

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from reid_edge.crops import resize_into

SIZE = (256, 128)


def rule(crop):
    out = np.empty((*SIZE, 3), np.uint8)
    resize_into(crop, out)
    return out


RULES = {
    "bilinear": lambda crop: cv2.resize(crop, SIZE[::-1], interpolation=cv2.INTER_LINEAR),
    "area": lambda crop: cv2.resize(crop, SIZE[::-1], interpolation=cv2.INTER_AREA),
    "box-bilinear": rule,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    photographs = [cv2.imread(str(path)) for path in sorted(parser.parse_args().folder.glob("*.jpg"))]
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    print("| crop | " + " | ".join(f"{name}: dB, µs" for name in RULES) + " |\n|---|" + "---|" * len(RULES))
    for height in (128, 200, 300, 400, 520, 800, 1000):
        width = int(0.42 * height)
        decibels, times = {name: [] for name in RULES}, {name: [] for name in RULES}
        for photograph in photographs:
            if photograph is None or photograph.shape[0] < height or photograph.shape[1] < width:
                continue
            for _ in range(5):
                y = rng.integers(0, photograph.shape[0] - height + 1)
                x = rng.integers(0, photograph.shape[1] - width + 1)
                crop = np.ascontiguousarray(photograph[y : y + height, x : x + width])
                reference = np.asarray(Image.fromarray(crop).resize(SIZE[::-1], Image.BILINEAR), float)
                for name, resize in RULES.items():
                    start = time.perf_counter()
                    resized = resize(crop)
                    times[name].append(time.perf_counter() - start)
                    decibels[name].append(10 * np.log10(255**2 / np.mean((resized - reference) ** 2)))
        cells = [f"{np.mean(decibels[name]):.1f}, {1e6 * statistics.median(times[name]):.0f}" for name in RULES]
        print(f"| {height}×{width} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
