"""Sort the person crops of a folder by their similarity to a query.

Usage: python rank_a_folder.py BUNDLE QUERY.jpg FOLDER
"""

import sys
from pathlib import Path

import cv2

from reid_edge import Extractor

bundle, query, folder = sys.argv[1:]
paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
crops = [cv2.imread(str(path)) for path in paths]  # each H×W×3 uint8, BGR; sizes may differ

extractor = Extractor(bundle)
[wanted] = extractor([cv2.imread(query)])  # 512 float32, unit length
similarities = extractor(crops) @ wanted  # N cosines

for place, row in enumerate(similarities.argsort()[::-1], start=1):
    print(f"{place:3}  {similarities[row]:.3f}  {paths[row].name}")
