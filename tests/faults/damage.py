"""Damage to files as disks and cables do it: seeded, and described for the message of a test that fails.

damage = damage_file(path, random.Random(seed))
assert recovered(path), f"seed {seed}: {damage}"
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["bit", "zeroed", "duplicated", "swapped", "truncated"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Bytes that a disk loses at once: a sector as most disks report it, and one as they write it (and a page of SQLite).
SECTOR_SIZES = (512, 4096)


@dataclass(frozen=True)
class Damage:
    """One damage to the bytes of a file.

    Attributes:
        kind: ``bit``: one bit is flipped; ``zeroed``: a sector is zeros; ``duplicated``: a sector holds another's
            bytes; ``swapped``: two sectors have changed places; ``truncated``: the file ends early.
        offset: First byte that is damaged; the new length if truncated.
        bit: Number of the bit that is flipped, 0 to 7.
        size: Bytes of a sector.
        other: First byte of the other sector.
        file: Name of the file.
    """

    kind: Kind
    offset: int
    bit: int = 0
    size: int = 0
    other: int = 0
    file: str = ""

    def applied(self, content: bytes) -> bytes:
        """Return the bytes after the damage."""
        there = bytearray(content)
        here, elsewhere = slice(self.offset, self.offset + self.size), slice(self.other, self.other + self.size)
        match self.kind:
            case "bit":
                there[self.offset] ^= 1 << self.bit
            case "zeroed":
                there[here] = bytes(len(there[here]))
            case "duplicated":
                there[here] = content[elsewhere]
            case "swapped":
                there[here], there[elsewhere] = content[elsewhere], content[here]
            case "truncated":
                del there[self.offset :]
        return bytes(there)

    def __str__(self) -> str:
        match self.kind:
            case "bit":
                what = f"bit {self.bit} of byte {self.offset} flipped"
            case "zeroed":
                what = f"bytes {self.offset} to {self.offset + self.size} zeroed"
            case "duplicated":
                what = f"{self.size} bytes from {self.other} repeated at {self.offset}"
            case "swapped":
                what = f"{self.size} bytes at {self.offset} and at {self.other} swapped"
            case "truncated":
                what = f"cut to {self.offset} bytes"
        return f"{self.file}: {what}" if self.file else what


def random_damage(content: bytes, luck: random.Random, kinds: Sequence[Kind] = KINDS, *, file: str = "") -> Damage:
    """Return a damage that changes these bytes.

    Raises:
        ValueError: There is none of these kinds, e.g. because the file is empty.
    """
    for _ in range(1000):  # a sector of zeros cannot be zeroed
        damage = _draw(len(content), luck, luck.choice(kinds), file)
        if damage is not None and damage.applied(content) != content:
            return damage
    raise ValueError(f"no damage of the kinds {', '.join(kinds)} changes these {len(content)} bytes")


def damage_file(path: Path, luck: random.Random, kinds: Sequence[Kind] = KINDS) -> Damage:
    """Damage a file in place, also one that a program has open, and return how."""
    before = path.read_bytes()
    damage = random_damage(before, luck, kinds, file=path.name)
    after = damage.applied(before)
    with path.open("r+b") as file:
        for at in range(0, len(after), 512):
            if after[at : at + 512] != before[at : at + 512]:
                file.seek(at)
                file.write(after[at : at + 512])
        if len(after) < len(before):
            file.truncate(len(after))
    return damage


def _draw(length: int, luck: random.Random, kind: Kind, file: str) -> Damage | None:
    """Return a damage of this kind, or None if the file is too short for it."""
    if kind == "bit":
        return Damage(kind, luck.randrange(length), bit=luck.randrange(8), file=file) if length else None
    if kind == "truncated":
        return Damage(kind, luck.randrange(length), file=file) if length else None
    size = luck.choice(SECTOR_SIZES)
    whole = length // size
    if kind == "zeroed":  # the last sector may be cut short
        return Damage(kind, luck.randrange(-(-length // size)) * size, size=size, file=file) if length else None
    if whole < 2:
        return None
    here, other = (size * sector for sector in luck.sample(range(whole), 2))
    return Damage(kind, here, size=size, other=other, file=file)
