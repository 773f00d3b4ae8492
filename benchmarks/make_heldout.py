"""Make a Market-1501 tree of query and gallery from the last identities of the train split.

    python benchmarks/make_heldout.py ROOT OUT [--identities 100]

ROOT holds ``bounding_box_train``; what is held out is what ``reid-edge train`` holds out (reid_edge.datasets.holdout):
one query image per identity and camera (the first by name), as Market-1501's own test split has; all other images are
gallery.  Links, no copies.  Evaluate with: reid-edge evaluate BUNDLE --root OUT --partial
"""

import argparse
from pathlib import Path

from reid_edge.datasets.boxes import FOLDERS
from reid_edge.datasets.holdout import hold_out
from reid_edge.datasets.loading import load_split

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("root", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--identities", type=int, default=100)
arguments = parser.parse_args()

held = hold_out(load_split("market1501", arguments.root, "train", partial=True), arguments.identities)
for folder, images in ((FOLDERS["query"], held.query), (FOLDERS["gallery"], held.gallery)):
    (arguments.out / folder).mkdir(parents=True)
    for image in images:
        (arguments.out / folder / image.path.name).symlink_to(image.path.resolve())
print({"query": len(held.query), "gallery": len(held.gallery)})
