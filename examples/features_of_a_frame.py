"""Compute features of people in a frame, and print how similar they are to one another.

Usage: python features_of_a_frame.py BUNDLE FRAME.jpg x1,y1,x2,y2 [x1,y1,x2,y2 ...]
"""

import sys

import cv2
import numpy as np

from reid_edge import Extractor

bundle, picture, *texts = sys.argv[1:]
frame = cv2.imread(picture)  # H×W×3 uint8, BGR
boxes = np.array([text.split(",") for text in texts], dtype=float)  # N×4 pixels: x1 y1 x2 y2

extraction = Extractor(bundle).extract(frame, boxes)  # leaves out boxes that hold no pixel
for box in extraction.skipped:
    print(f"box {box.index} was skipped: {box.reason}")

similarities = extraction.features @ extraction.features.T  # features have unit length: the product is the cosine
print("similarity of box to box", *(f"{box:>6}" for box in extraction.kept))
for box, row in zip(extraction.kept, similarities, strict=True):
    print(f"{box:>24}", *(f"{value:6.3f}" for value in row))
