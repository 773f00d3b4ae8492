"""Make the calibration sets that ship with the checkpoints under models/: no photograph goes in.

    python calibration/make_default.py [CHECKPOINT...] [--out DIR]

Each checkpoint (if none is given: each under models/) gets DIR/SHA-HxW.npz (SHA: first 12 digits of the weights'
sha256) with `calibration` and `held_out`, N×H×W×3 uint8 BGR, exactly as `reid-edge export` distils them when no set is
shipped.  A set that is there already stays.
"""

import argparse
from pathlib import Path

from reid_edge.assets import assets
from reid_edge.console import progress_bars
from reid_edge.export.calibration import distilled_set, save_set, shipped_name
from reid_edge.osnet.checkpoint import load_checkpoint

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoints", nargs="*", type=Path)
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

for path in arguments.checkpoints or assets("models", "*.safetensors"):
    checkpoint = load_checkpoint(path)
    out = arguments.out / shipped_name(checkpoint, checkpoint.info.size)
    if out.is_file():
        print(out, "is there already")
        continue
    with progress_bars() as notify:
        made = distilled_set(checkpoint, checkpoint.info.size, notify)
    save_set(made, out)
    print(out, f"{out.stat().st_size:,} bytes", made.record)
