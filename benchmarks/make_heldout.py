"""Make a Market-1501 tree of query and gallery from the last identities of the train split.

    python benchmarks/make_heldout.py ROOT OUT [--identities 100] [--tracklets]

ROOT holds ``bounding_box_train``; what is held out is what ``reid-edge train`` holds out (reid_edge.datasets.holdout):
one query image per identity and camera (the first by name), as Market-1501's own test split has; all other images are
gallery.  Links, no copies.  Evaluate with: reid-edge evaluate BUNDLE --root OUT --partial

``--tracklets`` makes every image both a query and gallery, for searches with whole tracklets, each of which finds those
of other cameras: reid-edge evaluate BUNDLE --root OUT --partial --tracklets
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
parser.add_argument("--tracklets", action="store_true")
arguments = parser.parse_args()

held = hold_out(load_split("market1501", arguments.root, "train", partial=True), arguments.identities)
query, gallery = held.query, held.gallery
if arguments.tracklets:
    query = gallery = [*query, *gallery]
for folder, images in ((FOLDERS["query"], query), (FOLDERS["gallery"], gallery)):
    (arguments.out / folder).mkdir(parents=True)
    for image in images:
        (arguments.out / folder / image.path.name).symlink_to(image.path.resolve())
print({"query": len(query), "gallery": len(gallery)})
