"""Make the calibration sets that ship with the checkpoints under models/: no photograph goes in.

    python calibration/make_default.py

Each checkpoint gets calibration/SHA-HxW.npz (SHA: first 12 digits of the weights' sha256) with `calibration` and
`held_out`, N×H×W×3 uint8 BGR, exactly as `reid-edge export` distils them when no set is shipped.
"""

import numpy as np
from rich.progress import Progress

from reid_edge.assets import assets
from reid_edge.export.calibration import distilled_set, shipped_name
from reid_edge.osnet.checkpoint import load_checkpoint

for path in assets("models", "*.safetensors"):
    checkpoint = load_checkpoint(path)
    size = checkpoint.info.size
    with Progress() as progress:

        def notify(text: str, steps: int):
            task = progress.add_task(text, total=steps)
            return lambda: progress.advance(task)

        made = distilled_set(checkpoint, size, notify)
    out = path.parent.parent / "calibration" / shipped_name(checkpoint, size)
    np.savez_compressed(out, calibration=made.calibration, held_out=made.held_out)
    print(out, f"{out.stat().st_size:,} bytes", made.record)
