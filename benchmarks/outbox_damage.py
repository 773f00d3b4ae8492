"""Damages to outboxes, at rest and in use: what is stuck, refused or lost without a word.

    python benchmarks/outbox_damage.py [--lives 110] [--each 20] [--first-seed 1000]

Lets so many outboxes live a random life, and damages the database or its log of each so many times at rest and half as
many times in use (``tests/upstream/outbox/damages.py``).  Exits 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.upstream.outbox.damages import outcomes, summary

_RAM = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=110)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began, found = time.monotonic(), []
    seeds = range(options.first_seed, options.first_seed + options.lives)
    with tempfile.TemporaryDirectory(dir=_RAM if _RAM.is_dir() else None) as folder:
        for seed, outcome in outcomes(seeds, options.each, Path(folder)):
            found.append(outcome)
            if outcome.wrong:
                print(f"seed {seed}: {outcome.how}: {'; '.join(outcome.wrong[:3])}", flush=True)
    broken = sum(bool(outcome.wrong) for outcome in found)
    print(
        f"{len(found)} damages of {options.lives} outboxes ({dict(summary(found))}), {broken} with a broken promise; "
        f"rows missing: {sum(outcome.missing for outcome in found)}, declared: "
        f"{sum(outcome.declared for outcome in found)}; {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
