"""Random halves of a dataset's identities that are the same on every machine and with every library version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

#: VIPeR's and GRID's figures are means over ten random splits (paper, section 4.1).
SPLITS = 10


def described(name: str, number: int) -> str:
    """What a checkpoint trained on one split says that it was trained on."""
    return f"{name}, random split {number}"


def training_half(seed: str, number: int, identities: Iterable[int]) -> frozenset[int]:
    """The first half of the identities in a random order; the rest is for testing.

    The order is that of SHA-256 digests: random generators of libraries do not promise the same numbers in later
    releases.

    Args:
        seed: Any text; the dataset's name.
        number: Which split, 0 to 9.
        identities: All.
    """
    order = sorted(
        set(identities), key=lambda identity: hashlib.sha256(f"{seed} {number} {identity}".encode()).digest()
    )
    return frozenset(order[: len(order) // 2])
