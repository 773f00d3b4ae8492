"""Random draws of a run, as pure functions of seed and place: an epoch's batches, a step's augmentation, weights.

Resuming therefore needs no stored state of a sampler or generator, and all processes draw the same.  An epoch is a
list of batches over all processes, of which each process takes its slice; every epoch of a run has equally many.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch

from reid_edge.errors import DatasetError, SettingsError

Indices = npt.NDArray[np.int64]

#: Identities that an error names.
_NAMED = 10


def shuffled_batches(count: int, size: int, *, seed: int, epoch: int) -> list[torch.Tensor]:
    """Cut all images, shuffled, into batches; the last, incomplete one is dropped.

    Args:
        count: Images.
        size: Images of a batch.
        seed: Of the run.
        epoch: From 0.

    Returns:
        ⌊count / size⌋ int64 tensors of ``size`` indices.

    Raises:
        DatasetError: Fewer images than one batch.
    """
    if count < size:
        raise DatasetError(
            f"a batch takes {size} images, and there are only {count}. Set batch.size to {count} or less."
        )
    order = torch.from_numpy(generator(seed, Use.SAMPLING, epoch).permutation(count))
    return list(torch.split(order[: count // size * size], size))


def check_balance(
    identities: Sequence[int], size: int, instances: int, *, names: Sequence[object] | None = None
) -> None:
    """Check that identity-balanced batches can be drawn, before anything long starts.

    Args:
        identities: Identity of each image.
        size: Images of a batch.
        instances: Images of one identity in a batch.
        names: Names of the images, for messages; None: the identities' numbers are used.

    Raises:
        SettingsError: ``size`` is not a multiple of ``instances``, or less than two identities.
        DatasetError: Identities with one image only (no positive pair), or too few identities or images for a batch.
    """
    if size % instances or size // instances < 2:
        raise SettingsError(
            f"batch.size must be at least twice batch.instances and a multiple of it: {size} images of a batch are "
            f"not two or more identities × {instances}."
        )
    values, first, counts = np.unique(np.asarray(identities, np.int64), return_index=True, return_counts=True)
    if (lonely := first[counts == 1]).size:
        known = identities if names is None else names
        named = ", ".join(str(known[index]) for index in lonely[:_NAMED]) + (", …" if lonely.size > _NAMED else "")
        raise DatasetError(
            f"{lonely.size} of {values.size} identities have one image only, and the triplet loss needs two of each: "
            f"{named}. Leave them out, or train without triplet loss (loss.triplet = 0, no batch.instances)."
        )
    wanted = size // instances
    if values.size < wanted:
        raise DatasetError(
            f"a batch takes {wanted} identities × {instances} images, and there are only {values.size} identities. "
            f"Set batch.size to {values.size * instances} or less."
        )
    if len(identities) < size:
        raise DatasetError(
            f"a batch takes {size} images, and there are only {len(identities)}. Set batch.size to "
            f"{len(identities) // instances * instances} or less."
        )


def balanced_batches(
    identities: Sequence[int], size: int, instances: int, *, seed: int, epoch: int
) -> list[torch.Tensor]:
    """Draw batches of size / instances different identities with ``instances`` images each.

    The PK batches of Hermans et al. (arXiv 1703.07737, section 2): identities come up equally often, in random order,
    each once before any comes again (but for the few that do not fill a batch).  So are the images of one identity; one
    with fewer than ``instances`` gives all of them, and the rest again, with replacement.  There are as many batches as
    in an epoch of plain shuffling.

    Args:
        identities: Identity of each image.
        size: Images of a batch.
        instances: Images of one identity in a batch.
        seed: Of the run.
        epoch: From 0.

    Returns:
        ⌊N / size⌋ int64 tensors of ``size`` indices; images of one identity stand together.

    Raises:
        SettingsError: See ``check_balance``.
        DatasetError: See ``check_balance``.
    """
    check_balance(identities, size, instances)
    rng = generator(seed, Use.SAMPLING, epoch)
    _, owner, counts = np.unique(np.asarray(identities, np.int64), return_inverse=True, return_counts=True)
    decks = [_Deck(images, rng) for images in np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1])]
    batches: list[torch.Tensor] = []
    group = size // instances
    while len(batches) < len(identities) // size:
        order = rng.permutation(len(decks))
        for start in range(0, len(order) - group + 1, group):
            drawn = [decks[identity].draw(instances) for identity in order[start : start + group]]
            batches.append(torch.from_numpy(np.concatenate(drawn)))
    return batches[: len(identities) // size]


class _Deck:
    """The images of one identity, dealt like cards, and shuffled again when too few are left for a draw."""

    def __init__(self, images: Indices, rng: np.random.Generator) -> None:
        self._images, self._rng = images, rng
        self._left = images[:0]

    def draw(self, count: int) -> Indices:
        if (missing := count - len(self._images)) > 0:
            return np.concatenate([self._images, self._rng.choice(self._images, missing)])
        if len(self._left) < count:
            self._left = self._rng.permutation(self._images)
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn


def rank_slice(batch: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """Return the part of a batch, or of anything with a row per image of it, that one process works on.

    Parts stand one after the other: gathered in order of rank, they are the batch again.

    Args:
        batch: B×….
        rank: Of the process, from 0.
        world: Processes.

    Raises:
        SettingsError: B is not a multiple of ``world``.
    """
    if len(batch) % world:
        raise SettingsError(
            f"batch.size must be a multiple of the {world} processes, got {len(batch)}. "
            f"Set batch.size to {max(1, len(batch) // world) * world}."
        )
    share = len(batch) // world
    return batch[rank * share : (rank + 1) * share]


class Use(IntEnum):
    """Uses of random numbers; the streams of different uses are independent."""

    AUGMENTATION = 1
    SAMPLING = 2
    WEIGHTS = 3


def generator(seed: int, use: Use, place: int) -> np.random.Generator:
    """Return the generator of one step or epoch.

    The numbers are the same on every machine with the same NumPy.  NumPy keeps the bits from release to release, but
    may change how shuffling uses them.

    Args:
        seed: Seed of the run, ≥ 0.
        use: Use of the numbers.
        place: Step or epoch, ≥ 0.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(use, place)))


def numbers(seed: int, step: int, rows: int, columns: int) -> torch.Tensor:
    """Return the numbers of one step's augmentation: rows×columns float32, uniform on [0, 1), on the CPU.

    Args:
        seed: Seed of the run, ≥ 0.
        step: Number of the step, from the start of the run.
        rows: Images of the whole batch, over all processes: each process takes its own rows.
        columns: ``Augmenter.columns``.
    """
    return torch.from_numpy(generator(seed, Use.AUGMENTATION, step).random((rows, columns), dtype=np.float32))
