"""From the outbox to the receiving end."""

from reid_edge.upstream.delivery.delivery import Delivery
from reid_edge.upstream.delivery.stats import DeliveryStats

__all__ = ["Delivery", "DeliveryStats"]
