"""The limit from which tracklets are joined, and the evidence behind it, in words."""

from __future__ import annotations

from reid_edge.errors import StoreError
from reid_edge.gallery.comparison import kept_comparison
from reid_edge.gallery.store import Store
from reid_edge.identity.known_pairs import KnownPairs
from reid_edge.wording import counted


def limit_text(limit: float | None, known: KnownPairs | None) -> str:
    """Return from which relative similarity tracklets are joined, and what that is known from."""
    joined = (
        "No tracklets are near enough to be joined" if limit is None else f"Tracklets are joined from {limit:.2f} on"
    )
    return f"{joined}; behind this limit: {limit_evidence(known)}"


def limit_evidence(known: KnownPairs | None) -> str:
    """Return what the limit is known from."""
    numbers = "the numbers of tracklets and of matches"
    if known is None:
        return f"{numbers} (no labelled pairs)"
    pairs = (
        f"{known.one_above:,} of {counted(known.one, 'labelled pair')} of one person and {known.two_above:,} of "
        f"{counted(known.two, 'labelled pair')} of two people reach {known.limit:.2f}"
    )
    if known.strangers > 1:
        return f"{numbers}; {pairs}, so {known.strangers:.1f} times as many strangers are expected, and more is needed"
    return f"{numbers}; {pairs}, no more strangers than expected"


def stored_evidence(store: Store, model_hash: str) -> str:
    """Return what the limit of a model is known from, as the gallery keeps it."""
    try:
        kept = kept_comparison(store, model_hash)
    except StoreError as error:
        return f"not known: {error}"
    return limit_evidence(None if kept is None or kept.calibration is None else kept.known)
