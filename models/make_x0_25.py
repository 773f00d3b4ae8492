"""Make models/osnet_x0_25_market1501.safetensors from the torchreid-named state dict that the team trained.

python models/make_x0_25.py ../shared/data/osnet_x0_25_market1501_scratch.pth
"""

import dataclasses
import sys
from pathlib import Path

from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.osnet.torchreid import import_torchreid

checkpoint = import_torchreid(
    Path(sys.argv[1]), width=0.25, dataset="Market-1501 train split (751 identities, 12,936 images; research only)"
)
info = dataclasses.replace(
    checkpoint.info,
    recipe="from scratch: 127 epochs, SGD 0.065 cosine, batch 64, label smoothing 0.1, flip, random translation crop, "
    "random erasing, bf16",
    metrics={"market1501/test/rank1": 0.873, "market1501/test/mAP": 0.704},
    code_commit="prototype, before this repository",
)
save_checkpoint(
    dataclasses.replace(checkpoint, info=info),
    Path(__file__).with_name("osnet_x0_25_market1501.safetensors"),
    force=True,
)
