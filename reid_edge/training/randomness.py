"""Randomness as a pure function of seed and place: resuming needs no stored generator state, and processes agree."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Use(IntEnum):
    """What random numbers are for: streams of different uses are independent."""

    AUGMENTATION = 1
    SAMPLING = 2
    WEIGHTS = 3


def generator(seed: int, use: Use, place: int) -> np.random.Generator:
    """Return the generator of one step or epoch.

    The same numbers on every machine with the same NumPy; NumPy keeps the bits from release to release, and may change
    what shuffling makes of them.

    Args:
        seed: Of the run, ≥ 0.
        use: What for.
        place: Step or epoch, ≥ 0.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(use, place)))


def numbers(seed: int, step: int, rows: int, columns: int) -> torch.Tensor:
    """Return what one step's augmentation draws on: rows×columns float32, uniform on [0, 1), on the CPU.

    Args:
        seed: Of the run, ≥ 0.
        step: Since the start of the run.
        rows: Images of the whole batch, over all processes: each process takes its own rows.
        columns: ``Augmenter.columns``.
    """
    return torch.from_numpy(generator(seed, Use.AUGMENTATION, step).random((rows, columns), dtype=np.float32))
