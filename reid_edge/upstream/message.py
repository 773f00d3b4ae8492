"""The wire format: records of ``upstream.observation`` to bytes and back (``docs/wire.md`` describes the bytes)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from reid_edge.errors import MessageError, MissingExtraError
from reid_edge.upstream.observation import MAX_GALLERIES, Ack, Batch, Gap, GapReason, Observation, Refusal, Replay
from reid_edge.wire_names import checked_wire_name

try:
    from google.protobuf.message import DecodeError, EncodeError

    from reid_edge.upstream import observation_pb2
except ImportError as error:
    raise MissingExtraError("protobuf", "camera,gallery", "the wire format") from error

VERSION = 1
"""Version of the messages that this release writes."""

Encoding = Literal["fp16", "fp32", "int8"]
ENCODINGS: tuple[Encoding, ...] = ("fp32", "fp16", "int8")
"""Encodings of features, in the order of their numbers on the wire, from 1."""

#: Most rows and gaps of a batch; cameras send up to 500 and 128.
MOST_ROWS, MOST_GAPS = 2000, 512
#: Most observations that a gap counts: a thousand years of a busy camera.  Sums over gaps stay within 64 bits.
MOST_IN_GAP = 10**12
#: Most numbers of a feature: as many as every store of the gallery takes (pgvector's ``halfvec``).
MOST_NUMBERS = 16_000

_SCHEMA: Any = observation_pb2
_NO_MESSAGE = (DecodeError, ValueError, TypeError)  # ValueError: text that is not UTF-8, without protobuf's C code
_REASONS: tuple[GapReason, ...] = ("full", "expired", "lost")
_HASH = re.compile(r"[0-9a-f]{64}")
_DTYPES = (np.dtype("<f4"), np.dtype("<f2"), np.dtype("i1"))  # of ENCODINGS
_LENGTH_TOLERANCE = 0.01  # of a feature's squared length: fp16 needs 1e-3

Envelope = TypeVar("Envelope")


def encode_observation(observation: Observation, encoding: Encoding = "fp16") -> bytes:
    """Encode one observation, as an outbox row holds it and a batch carries it.

    Args:
        observation: What to encode.
        encoding: How to write the numbers of the feature.

    Raises:
        MessageError: A value that the format cannot hold, e.g. a feature whose length is not 1.
    """
    if not _HASH.fullmatch(observation.model_hash):
        raise MessageError(f"model_hash must be 64 hexadecimal digits; got {observation.model_hash!r}.")
    number, scale, data = _pack(observation.feature, encoding)
    try:
        message = _SCHEMA.Observation(
            model_hash=bytes.fromhex(observation.model_hash),
            track=observation.track,
            captured_us=observation.captured_us,
            first_us=observation.first_us,
            last_us=observation.last_us,
            box=observation.box,
            confidence=observation.confidence,
            quality=observation.quality,
            crops=observation.crops,
            final=observation.final,
            enc=number,
            dim=len(data) // _DTYPES[number - 1].itemsize,
            scale=scale,
            feature=data,
        )
        _check(message)
        return bytes(message.SerializeToString())
    except (ValueError, TypeError, EncodeError) as error:
        raise MessageError(f"cannot send an observation: {error}") from error


def encode_batch(
    camera: str,
    incarnation: str,
    rows: Sequence[tuple[int, bytes]],
    gaps: Iterable[Gap] = (),
    *,
    galleries: Sequence[str] = (),
) -> bytes:
    """Encode a batch.

    Args:
        camera: Pseudonym of the camera.
        incarnation: Names the outbox file that the rows come from; ``epoch`` on the wire.
        rows: Sequence numbers and encoded observations.
        gaps: Observations that were dropped.
        galleries: Names of the galleries that the batch is for; none: for whoever gets it.

    Raises:
        MessageError: A name or number that the format cannot hold.
    """
    try:
        batch = _SCHEMA.Batch(
            version=VERSION,
            camera=checked_wire_name(camera, "camera", MessageError),
            epoch=checked_wire_name(incarnation, "incarnation", MessageError),
            galleries=_galleries(galleries),
        )
        add = batch.rows.add
        for seq, observation in rows:
            add(seq=seq, observation=observation)
        for gap in gaps:
            batch.gaps.add(
                first_seq=gap.first_seq,
                last_seq=gap.last_seq,
                count=gap.count,
                reason=_REASONS.index(gap.reason) + 1,
            )
        return bytes(batch.SerializeToString())
    except (ValueError, TypeError, EncodeError) as error:
        raise MessageError(f"cannot send a batch: {error}") from error


def decode_batch(payload: bytes) -> Batch:
    """Decode a batch; a row that cannot be read is listed in ``unreadable``, the others are kept.

    Raises:
        MessageError: The bytes are not a batch that this release reads, or hold more than any camera sends.
    """
    batch = _parsed(_SCHEMA.Batch(), payload)
    if len(batch.rows) > MOST_ROWS or len(batch.gaps) > MOST_GAPS:
        raise MessageError(
            f"a batch has at most {MOST_ROWS} rows and {MOST_GAPS} gaps; got {len(batch.rows)} and {len(batch.gaps)}."
        )
    observations: list[tuple[int, Observation]] = []
    unreadable: list[Refusal] = []
    for row in batch.rows:
        _seq(row.seq)
        try:
            observations.append((row.seq, decode_observation(row.observation)))
        except MessageError as error:
            unreadable.append(Refusal((row.seq,), str(error)))
    gaps = tuple(_gap(gap) for gap in batch.gaps)
    galleries = _galleries(batch.galleries)
    return Batch(batch.camera, batch.epoch, tuple(observations), gaps, tuple(unreadable), galleries)


def decode_observation(data: bytes) -> Observation:
    """Decode one row of a batch or an outbox.

    Raises:
        MessageError: The row is damaged, or of a later release that changed what this one relies on.
    """
    try:
        message = _SCHEMA.Observation.FromString(data)
    except _NO_MESSAGE as error:
        raise MessageError(f"a row holds no observation ({error}).") from error
    _check(message)
    return Observation(
        model_hash=message.model_hash.hex(),
        track=message.track,
        captured_us=message.captured_us,
        first_us=message.first_us,
        last_us=message.last_us,
        box=tuple(message.box),
        confidence=message.confidence,
        quality=message.quality,
        crops=message.crops,
        final=message.final,
        feature=_unpack(message.enc, message.dim, message.scale, message.feature),
    )


def last_seen_us(data: bytes) -> int:
    """Return the time at which a row's tracklet was last seen, microseconds since 1970 UTC.

    Raises:
        MessageError: The row holds no observation.
    """
    try:
        return int(_SCHEMA.Observation.FromString(data).last_us)
    except _NO_MESSAGE as error:
        raise MessageError(f"a row holds no observation ({error}).") from error


def restamped(data: bytes, correction_us: int) -> bytes:
    """Return a row with all times of its observation moved by ``correction_us``, and nothing else changed.

    Raises:
        MessageError: The row holds no observation, or one whose times would lie before 1970.
    """
    try:
        message = _SCHEMA.Observation.FromString(data)
        if message.first_us + correction_us < 0:
            raise ValueError(f"{message.first_us} microseconds cannot be moved by {correction_us}")
        message.captured_us += correction_us
        message.first_us += correction_us
        message.last_us += correction_us
        return bytes(message.SerializeToString())
    except _NO_MESSAGE as error:
        raise MessageError(f"a row cannot be given other times ({error}).") from error


def encode_ack(ack: Ack) -> bytes:
    """Encode the gallery's answer, which it gives once it has committed.

    Raises:
        MessageError: A name or number that the format cannot hold.
    """
    try:
        message = _SCHEMA.Ack(
            version=VERSION,
            camera=checked_wire_name(ack.camera, "camera", MessageError),
            epoch=checked_wire_name(ack.incarnation, "incarnation", MessageError),
            seqs=ack.seqs,
            gallery=_gallery(ack.gallery),
        )
        if ack.replay is not None:
            check_replay(ack.replay)
            message.replay.id = ack.replay.id
            message.replay.since_us = ack.replay.since_us
        for first_seq, last_seq in ack.gaps:
            message.gaps.add(first_seq=first_seq, last_seq=last_seq)
        for refusal in ack.refused:
            message.refused.add(seqs=refusal.seqs, reason=refusal.reason)
        return bytes(message.SerializeToString())
    except (ValueError, TypeError, EncodeError) as error:
        raise MessageError(f"cannot send an acknowledgement: {error}") from error


def decode_ack(payload: bytes) -> Ack:
    """Decode the gallery's answer.

    Raises:
        MessageError: The bytes are not an acknowledgement that this release reads.
    """
    ack = _parsed(_SCHEMA.Ack(), payload)
    refused = tuple(Refusal(tuple(refusal.seqs), refusal.reason) for refusal in ack.refused)
    for seqs in (ack.seqs, *(refusal.seqs for refusal in refused)):
        if seqs:
            _seq(min(seqs))
    gaps = tuple((gap.first_seq, gap.last_seq) for gap in ack.gaps)
    return Ack(ack.camera, ack.epoch, tuple(ack.seqs), gaps, refused, _gallery(ack.gallery), _replay(ack))


def _parsed(message: Envelope, payload: bytes) -> Envelope:
    """Parse a batch or an acknowledgement; raises MessageError unless its version and names can be read."""
    envelope: Any = message
    kind = envelope.DESCRIPTOR.name
    try:
        envelope.ParseFromString(payload)
    except _NO_MESSAGE as error:
        raise MessageError(f"expected a reid_edge.v1.{kind}, got other bytes ({error}).") from error
    if envelope.version < 1:
        raise MessageError(f"expected a reid_edge.v1.{kind} of version 1 or later, got version {envelope.version}.")
    try:
        checked_wire_name(envelope.camera, "camera", MessageError)
        checked_wire_name(envelope.epoch, "incarnation", MessageError)
    except MessageError as error:
        newer = f" It has version {envelope.version}, this release reads {VERSION}: upgrade."
        raise MessageError(f"{error}{newer if envelope.version > VERSION else ''}") from error
    return message


def _check(message: Any) -> None:
    """Raise MessageError unless every field of a protobuf Observation, apart from the feature, is in its range."""
    if len(message.model_hash) != 32:
        raise MessageError(f"model_hash must be 32 bytes; got {len(message.model_hash)}.")
    for name in ("track", "captured_us", "first_us", "last_us"):
        if getattr(message, name) < 0:
            raise MessageError(f"{name} must not be negative; got {getattr(message, name)}.")
    if message.crops < 1:
        raise MessageError(f"crops must be at least 1; got {message.crops}.")
    for name in ("confidence", "quality"):
        if not 0 <= getattr(message, name) <= 1:
            raise MessageError(f"{name} must be 0 to 1; got {getattr(message, name):g}.")
    box = tuple(message.box)
    if len(box) != 4 or not (0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1):
        raise MessageError(f"box must be x1 y1 x2 y2, ascending fractions of the frame, 0 to 1; got {box}.")


def _gap(gap: Any) -> Gap:
    if not 1 <= gap.first_seq <= gap.last_seq or not 1 <= gap.count <= gap.last_seq - gap.first_seq + 1:
        raise MessageError(f"a gap from {gap.first_seq} to {gap.last_seq} cannot stand for {gap.count} rows.")
    if gap.count > MOST_IN_GAP:
        raise MessageError(f"a gap counts at most {MOST_IN_GAP} rows; got {gap.count}.")
    known = 1 <= gap.reason <= len(_REASONS)
    return Gap(gap.first_seq, gap.last_seq, gap.count, _REASONS[gap.reason - 1] if known else "lost")


def _galleries(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > MAX_GALLERIES:
        raise MessageError(f"a batch is for at most {MAX_GALLERIES} galleries; got {len(names)}.")
    return tuple(checked_wire_name(name, "gallery", MessageError) for name in names)


def _gallery(name: str) -> str:
    return name and checked_wire_name(name, "gallery", MessageError)


def _replay(ack: Any) -> Replay | None:
    if not ack.HasField("replay"):
        return None
    return check_replay(Replay(ack.replay.id, ack.replay.since_us))


def check_replay(replay: Replay) -> Replay:
    """Return a request for observations if it can be sent.

    Raises:
        MessageError: It has another name, or a time that the format cannot hold.
    """
    checked_wire_name(replay.id, "replay", MessageError)
    if replay.since_us < 0:
        raise MessageError(f"since_us must not be negative; got {replay.since_us}.")
    if replay.since_us >= 2**63:
        raise MessageError(f"since_us must be below 2**63; got {replay.since_us}.")
    return replay


def _seq(seq: int) -> None:
    if seq < 1:
        raise MessageError(f"sequence numbers start at 1; got {seq}.")


def _pack(feature: npt.NDArray[np.float32], encoding: Encoding) -> tuple[int, float, bytes]:
    """Return the number of the encoding, the scale and the bytes of a feature.

    int8 rounds to 127 steps of the largest number; the scale gives the rounded feature unit length again.
    """
    if encoding not in ENCODINGS:
        raise MessageError(f"encoding must be one of {', '.join(ENCODINGS)}; got {encoding!r}.")
    number = ENCODINGS.index(encoding) + 1
    with np.errstate(all="ignore"):
        vector = np.asarray(feature, np.float32)
    _check_feature(vector)
    if encoding != "int8":
        return number, 0.0, vector.astype(_DTYPES[number - 1]).tobytes()
    steps = np.rint(vector * (127 / np.abs(vector).max()))
    return number, float(1 / np.sqrt(steps @ steps)), steps.astype(np.int8).tobytes()


def _unpack(number: int, dim: int, scale: float, data: bytes) -> npt.NDArray[np.float32]:
    """Return a feature, D float32 of unit length.

    Raises:
        MessageError: An unknown encoding, bytes that are not ``dim`` numbers, or another length than 1.
    """
    if not 1 <= number <= len(ENCODINGS):
        raise MessageError(f"its encoding has number {number}, and this release reads 1 to {len(ENCODINGS)}; upgrade.")
    dtype = _DTYPES[number - 1]
    if len(data) != dim * dtype.itemsize:
        raise MessageError(
            f"its feature of {dim} {ENCODINGS[number - 1]} numbers should take {dim * dtype.itemsize} bytes; "
            f"got {len(data)}."
        )
    vector = np.frombuffer(data, dtype).astype(np.float32)
    if ENCODINGS[number - 1] == "int8":
        with np.errstate(all="ignore"):  # what overflows is refused below
            vector *= np.float32(scale)
    _check_feature(vector)
    return vector


def _check_feature(vector: npt.NDArray[np.float32]) -> None:
    if vector.ndim != 1 or not len(vector):
        raise MessageError(f"a feature is one row of numbers; got shape {vector.shape}.")
    if len(vector) > MOST_NUMBERS:
        raise MessageError(f"a feature has at most {MOST_NUMBERS} numbers; got {len(vector)}.")
    with np.errstate(all="ignore"):  # what overflows is refused below
        squared = float(vector @ vector)
    if not abs(squared - 1) <= _LENGTH_TOLERANCE:  # also when it is not a number
        raise MessageError(f"a feature has length 1; got {squared**0.5:.4g}. Normalise it.")
