"""Power cuts at random moments of recorded runs: what is lost, and what is unsound.

    python benchmarks/powercut.py outbox|exchange|gallery [--seeds 40] [--cuts 25] [--first-seed 100]

Records a run of each seed by strace, and opens the file as it may be after a power cut at so many moments, in five
variants of what of the unsynced writes has reached the disk (``tests/faults/powercut.py``).  Exits 1 if a promise is
broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.faults.powercut import tried
from tests.gallery import store_lives
from tests.upstream.outbox import exchange_lives
from tests.upstream.outbox import lives as outbox_lives

_RAM = Path("/dev/shm")
_LIVES = {"outbox": outbox_lives, "exchange": exchange_lives, "gallery": store_lives}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=_LIVES)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--cuts", type=int, default=25, help="of each run")
    parser.add_argument("--first-seed", type=int, default=100)
    options = parser.parse_args()
    lives, began = _LIVES[options.what], time.monotonic()
    states, broken = Counter[str](), Counter[str]()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with tempfile.TemporaryDirectory(dir=_RAM if _RAM.is_dir() else None) as name:
            folder = Path(name)
            operations = lives.recorded(seed, folder)
            for state, wrong in tried(
                operations, lives.violations, random.Random(seed), cuts=options.cuts, folder=folder
            ):
                states[state.variant] += 1
                if wrong:
                    broken[state.variant] += 1
                    print(f"seed {seed}: {state}: {'; '.join(wrong[:3])} ({len(wrong)})", flush=True)
    print(
        f"{options.what}: {sum(states.values())} states of {options.seeds} runs ({dict(states)}), "
        f"{sum(broken.values())} with a broken promise {dict(broken)}, {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
