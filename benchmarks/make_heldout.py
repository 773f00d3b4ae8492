"""Make a Market-1501 tree of query and gallery from the last identities of the train split.

    python benchmarks/make_heldout.py TRAIN_FOLDER OUT [--identities 100]

One query image per identity and camera (the first by name), as Market-1501's own test split has; all other images are
gallery.  Links, no copies.  Evaluate with: reid-edge evaluate BUNDLE --root OUT --partial
"""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("train", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--identities", type=int, default=100)
arguments = parser.parse_args()

images = sorted(arguments.train.glob("*_c*.jpg"))
held_out = set(sorted({image.name[:4] for image in images})[-arguments.identities :])
folders = {name: arguments.out / name for name in ("query", "bounding_box_test")}
for folder in folders.values():
    folder.mkdir(parents=True)
seen: set[str] = set()
for image in images:
    if image.name[:4] not in held_out:
        continue
    view = image.name[:7]
    folder = folders["bounding_box_test" if view in seen else "query"]
    seen.add(view)
    (folder / image.name).symlink_to(image.resolve())
print({name: len(list(folder.iterdir())) for name, folder in folders.items()})
