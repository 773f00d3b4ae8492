"""What a delivery tells of itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class DeliveryStats:
    """What has happened since the start; read it from any thread.

    Attributes:
        batches: Handed to the transport.
        sent: Rows handed to the transport for the first time since the start.
        resent: Rows handed to it again.
        acknowledged: Rows acknowledged and deleted.
        refused: Rows refused by the receiving end, each time counted.
        refused_waiting: Rows that were refused and wait to be tried again.
        last_refusal: Why, in the receiving end's words.
        gaps_acknowledged: Gaps that the receiving end has stored.
        bad_acks: Acknowledgements that could not be read, or of another camera.
        transport_errors: Batches that the transport did not take.
        connected: The transport took the last batch.
        last_error: In words; "" if the transport took the last batch and the outbox works.
        last_ack_us: When an acknowledgement last came, microseconds since 1970 UTC.
        latencies_s: Seconds from sending a batch to its acknowledgement, of the last thousand.
    """

    batches: int = 0
    sent: int = 0
    resent: int = 0
    acknowledged: int = 0
    refused: int = 0
    refused_waiting: int = 0
    last_refusal: str = ""
    gaps_acknowledged: int = 0
    bad_acks: int = 0
    transport_errors: int = 0
    connected: bool = False
    last_error: str = ""
    last_ack_us: int | None = None
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
