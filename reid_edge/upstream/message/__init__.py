"""The wire format: records, and their bytes (``docs/wire.md``)."""

from reid_edge.upstream.message.codec import (
    VERSION,
    decode_ack,
    decode_batch,
    decode_observation,
    encode_ack,
    encode_batch,
    encode_observation,
)
from reid_edge.upstream.message.records import Ack, Batch, Gap, GapReason, Observation, Refusal
from reid_edge.upstream.message.vectors import ENCODINGS, Encoding

__all__ = [
    "ENCODINGS",
    "VERSION",
    "Ack",
    "Batch",
    "Encoding",
    "Gap",
    "GapReason",
    "Observation",
    "Refusal",
    "decode_ack",
    "decode_batch",
    "decode_observation",
    "encode_ack",
    "encode_batch",
    "encode_observation",
]
