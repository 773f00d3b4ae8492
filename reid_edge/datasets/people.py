"""Names of people or of people's folders as numbers."""

from __future__ import annotations

from collections.abc import Iterable

from reid_edge.errors import DatasetError

#: Longer numbers are names: they would not fit into 64 bits.
_DIGITS = 15


def numbered(names: Iterable[str], told_by: object) -> dict[str, int]:
    """Give each name a number: its own where all are whole numbers, else 1, 2, … in order of name.

    Args:
        names: Of all splits at once, so that a name has the same number in each.
        told_by: Where they stand, for messages.

    Raises:
        DatasetError: Two names that are the same number, such as 1 and 0001.
    """
    order = sorted(set(names))
    if not all(name.isascii() and name.isdigit() and len(name) <= _DIGITS for name in order):
        return {name: number for number, name in enumerate(order, 1)}
    numbers = {name: int(name) for name in order}
    seen: dict[int, str] = {}
    for name, number in numbers.items():
        if number in seen:
            raise DatasetError(f"{told_by}: the identities {seen[number]} and {name} are the same number; rename one.")
        seen[number] = name
    return numbers
