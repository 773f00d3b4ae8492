"""Observations on disk until the gallery has them."""

from reid_edge.upstream.outbox.destination import OUTBOX, SCHEMES, Destination, no_gallery
from reid_edge.upstream.outbox.folder import removed_if_new
from reid_edge.upstream.outbox.outbox import Outbox, WhenFull

__all__ = ["OUTBOX", "SCHEMES", "Destination", "Outbox", "WhenFull", "no_gallery", "removed_if_new"]
