"""Words of messages that depend on numbers."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 tracklet``, ``1,234 tracklets``.

    Args:
        count: The number.
        noun: What is counted, in the singular; words may stand before the noun.
        plural: The plural, where it is not the singular with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
