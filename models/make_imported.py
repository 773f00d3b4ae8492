"""Make the shipped checkpoint that was not trained by this repository's `train`, from a file with torchreid's names.

python models/make_imported.py market1501 ../shared/data/osnet_x0_25_market1501_scratch.pth
"""

import dataclasses
import sys
from pathlib import Path

from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.osnet.torchreid import import_torchreid

ABOUT = {
    "market1501": {
        "dataset": "Market-1501 train split (751 identities, 12,936 images; research only)",
        "recipe": "from scratch: 127 epochs, SGD 0.065 cosine, batch 64, label smoothing 0.1, flip, random translation "
        "crop, random erasing, bf16",
        "metrics": {"market1501/test/rank1": 0.873, "market1501/test/mAP": 0.704},
        "code_commit": "prototype, before this repository",
    },
}

name, file = sys.argv[1:]
checkpoint = import_torchreid(Path(file), width=0.25)
save_checkpoint(
    dataclasses.replace(checkpoint, info=dataclasses.replace(checkpoint.info, **ABOUT[name])),
    Path(__file__).with_name(f"osnet_x0_25_{name}.safetensors"),
    force=True,
)
