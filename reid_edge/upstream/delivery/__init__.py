"""Delivery from an outbox to galleries: rows are sent until they are acknowledged."""

from reid_edge.upstream.delivery.delivery import Delivery

__all__ = ["Delivery"]
