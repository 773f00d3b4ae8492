"""Observations on disk until the gallery has them."""

from reid_edge.upstream.outbox.destination import SCHEMES, Destination
from reid_edge.upstream.outbox.outbox import Outbox, WhenFull

__all__ = ["SCHEMES", "Destination", "Outbox", "WhenFull"]
