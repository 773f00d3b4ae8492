"""Observations on disk until the receiving end has them."""

from reid_edge.upstream.outbox.outbox import Outbox

__all__ = ["Outbox"]
