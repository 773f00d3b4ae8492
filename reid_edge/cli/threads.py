"""How torch's threads wait for work."""

from __future__ import annotations

import os

#: Turns of libgomp's waiting loop, about a tenth of a millisecond, before a thread goes to sleep.
SPINS = "4000"


def spin_briefly() -> None:
    """Let torch's threads spin a short while for work, then sleep; to be called before torch is imported.

    A small network's step is hundreds of short loops.  Threads that sleep at once (``OMP_WAIT_POLICY=PASSIVE``) have
    to be woken for each, and the step takes 2.4 times as long; with threads that spin for long, libgomp's own choice,
    two torch processes on the same cores wait for each other (benchmarks/README.md, Training).  What the user has
    set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
