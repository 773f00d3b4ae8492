"""Make the shipped checkpoints that were not trained by this repository's `train`, from files with torchreid's names.

    python models/make_imported.py market1501 ../shared/data/osnet_x0_25_market1501_scratch.pth
    python models/make_imported.py msmt17 osnet_x0_25_msmt17.pth

The first is the team's own state dict, the second torchreid's model zoo's.
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
    "msmt17": {
        "dataset": "MSMT17 train split (1,041 identities, 15 cameras; research only), from ImageNet (research only)",
        "recipe": "torchreid's model zoo (MIT licence), osnet_x0_25_msmt17",
        "code_commit": "torchreid's",
    },
}

name, file = sys.argv[1:]
checkpoint = import_torchreid(Path(file), width=0.25)
save_checkpoint(
    dataclasses.replace(checkpoint, info=dataclasses.replace(checkpoint.info, **ABOUT[name])),
    Path(__file__).with_name(f"osnet_x0_25_{name}.safetensors"),
    force=True,
)
