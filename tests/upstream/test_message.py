import contextlib
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import MessageError
from reid_edge.upstream.message import (
    ENCODINGS,
    MAX_GALLERIES,
    MOST_IN_GAP,
    decode_ack,
    decode_batch,
    decode_observation,
    encode_ack,
    encode_batch,
    encode_observation,
)
from reid_edge.upstream.observation import Ack, Batch, Gap, Observation, Refusal, Replay, TrackletReport

WIRE = Path(__file__).parent / "wire"
DOCS = Path(__file__).parents[2] / "docs"
CAMERA, INCARNATION = "c0123456789abcdef01234567", "8f14e45fceea167a"
REPLAY = Replay("4f1c", 1_795_000_000_000_000)
FIELDS = tuple(one.name for one in dataclasses.fields(TrackletReport))

seqs = st.integers(1, 2**63 - 1)
times = st.integers(0, 2**63 - 1)
fractions = st.floats(0, 1, width=32)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True)


def unit(dim: int = 512, seed: int = 0) -> np.ndarray:
    feature = np.random.default_rng(seed).normal(size=dim)
    return (feature / np.linalg.norm(feature)).astype(np.float32)


def observation(**changes) -> Observation:
    values = {
        "model_hash": "ab" * 32,
        "track": 7,
        "captured_us": 1_795_000_000_000_000,
        "first_us": 1_794_999_999_000_000,
        "last_us": 1_795_000_000_500_000,
        "box": (0.25, 0.125, 0.5, 1.0),
        "confidence": 0.875,
        "quality": 0.5,
        "crops": 3,
        "final": True,
        "feature": unit(),
    }
    return Observation(**{**values, **changes})


@st.composite
def observations(draw) -> Observation:
    x1, x2 = sorted((draw(fractions), draw(fractions)))
    y1, y2 = sorted((draw(fractions), draw(fractions)))
    return observation(
        model_hash=draw(st.binary(min_size=32, max_size=32)).hex(),
        track=draw(times),
        captured_us=draw(times),
        first_us=draw(times),
        last_us=draw(times),
        box=(x1, y1, x2, y2),
        confidence=draw(fractions),
        quality=draw(fractions),
        crops=draw(st.integers(1, 2**31 - 1)),
        final=draw(st.booleans()),
        feature=unit(draw(st.integers(1, 600)), draw(st.integers(0, 2**32))),
    )


@st.composite
def gap(draw) -> Gap:
    first, last = sorted((draw(seqs), draw(seqs)))
    count = draw(st.integers(1, min(last - first + 1, MOST_IN_GAP)))
    return Gap(first, last, count, draw(st.sampled_from(["full", "expired", "lost"])))


def tolerance(feature: np.ndarray, encoding: str) -> float:
    """Most that a number of a unit vector may change: the last of 11 bits, or half of 1/127 of the largest number.

    Of int8, the vector of those halves has a length, by which giving back unit length may stretch the largest number.
    """
    largest = float(abs(feature).max())
    half = 0.5 / 127 * largest
    stretch = half * len(feature) ** 0.5
    return {"fp32": 0.0, "fp16": 2**-11 * largest, "int8": half + (largest + half) * stretch / (1 - stretch)}[encoding]


def same_but_feature(first: Observation, second: Observation) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in FIELDS)


@given(
    st.lists(st.tuples(seqs, observations()), max_size=4),
    st.lists(gap(), max_size=4),
    names,
    names,
    st.lists(names, max_size=MAX_GALLERIES),
)
@settings(max_examples=60)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_batch_comes_back_as_it_went(encoding, sent, gaps, camera, incarnation, galleries):
    rows = [(seq, encode_observation(one, encoding)) for seq, one in sent]
    batch = decode_batch(encode_batch(camera, incarnation, rows, gaps, galleries=galleries))
    assert batch.galleries == tuple(galleries)
    assert (batch.camera, batch.incarnation, batch.gaps, batch.unreadable) == (camera, incarnation, tuple(gaps), ())
    assert [seq for seq, _ in batch.observations] == [seq for seq, _ in sent]
    for (_, before), (_, after) in zip(sent, batch.observations, strict=True):
        assert same_but_feature(before, after)
        assert after.feature.dtype == np.float32
        assert abs(after.feature - before.feature).max() <= tolerance(before.feature, encoding) * (1 + 1e-6)
        assert abs(np.linalg.norm(after.feature) - 1) < (1e-6 if encoding != "fp16" else 1e-3)


@given(
    names,
    names,
    st.lists(seqs, max_size=50),
    st.lists(st.tuples(seqs, seqs), max_size=5),
    st.lists(st.builds(Refusal, st.lists(seqs, max_size=5).map(tuple), st.text(max_size=30)), max_size=3),
    st.just("") | names,
    st.none() | st.builds(Replay, names, times),
)
def test_an_acknowledgement_comes_back_as_it_went(camera, incarnation, stored, gaps, refused, gallery, replay):
    ack = Ack(camera, incarnation, tuple(stored), tuple(gaps), tuple(refused), gallery, replay)
    assert decode_ack(encode_ack(ack)) == ack


def stored_messages(name: str) -> list[Path]:
    found = sorted(WIRE.glob(f"v*/{name}"))
    assert found
    return found


@pytest.mark.parametrize("path", stored_messages("batch_*.bin"), ids=lambda path: "/".join(path.parts[-2:]))
def test_batches_of_every_released_version_can_be_read(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    batch = decode_batch(path.read_bytes())
    assert (batch.camera, batch.incarnation) == (expected["camera"], expected["epoch"])
    assert [vars(gap) for gap in batch.gaps] == expected["gaps"]
    assert list(batch.galleries) == expected.get("galleries", [])
    encoding = path.stem.removeprefix("batch_")
    assert len(batch.observations) == len(expected["observations"])
    for (seq, one), (expected_seq, fields) in zip(batch.observations, expected["observations"], strict=True):
        assert seq == expected_seq
        stored = {name: fields[name] for name in fields.keys() - {"feature"}}
        assert {name: getattr(one, name) for name in stored} == {**stored, "box": one.box}
        assert list(one.box) == fields["box"]
        feature = np.array(fields["feature"])
        assert abs(one.feature - feature).max() <= tolerance(feature, encoding) + 1e-7


@pytest.mark.parametrize("path", stored_messages("ack.bin"), ids=lambda path: "/".join(path.parts[-2:]))
def test_acknowledgements_of_every_released_version_can_be_read(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    ack = decode_ack(path.read_bytes())
    fields = {**vars(ack), "refused": [vars(one) for one in ack.refused], "replay": ack.replay and vars(ack.replay)}
    fields["epoch"] = fields.pop("incarnation")
    assert json.loads(json.dumps(fields)) == {"gallery": "", "replay": None, **expected}


def test_the_decoder_in_the_docs_reads_the_stored_batches():
    code = re.search(r"```python\n(.*?)```", (DOCS / "wire.md").read_text(encoding="utf-8"), re.S)
    assert code is not None
    lines = [line for line in code[1].splitlines() if line.strip()]
    assert len(lines) <= 10
    for path in stored_messages("batch_*.bin"):
        names = {}
        exec(code[1].replace("batch.bin", str(path)), names)
        batch = decode_batch(path.read_bytes())
        features = {seq: one.feature for seq, one in batch.observations}
        assert list(names["features"]) == list(features)
        for seq, feature in features.items():
            assert np.array_equal(names["features"][seq], feature)


def test_every_field_is_described_in_the_docs():
    schema = (DOCS.parent / "reid_edge/upstream/observation.proto").read_text(encoding="utf-8")
    text = (DOCS / "wire.md").read_text(encoding="utf-8")
    for message, body in re.findall(r"message (\w+) \{(.*?)\n\}", schema, re.S):
        for name, number in re.findall(r"(\w+) = (\d+);", body):
            assert re.search(rf"\| {message}(\.|\b).*`{name}` \| {number} \|", text), f"{message}.{name} = {number}"


# What another program, or a later release, may send.  Made by hand: a tag is number * 8 + wire type.


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number * 8 + 2) + varint(len(value)) + value
    return varint(number * 8) + varint(value)


def test_unknown_fields_of_a_later_version_are_ignored():
    new = field(99, b"new") + field(100, 5)
    row = field(2, 0) + encode_observation(observation()) + new
    payload = encode_batch(CAMERA, INCARNATION, [(5, row)], [Gap(1, 4, 4, "full")])
    batch = decode_batch(payload + field(1, 2) + new)
    assert [seq for seq, _ in batch.observations] == [5]
    assert same_but_feature(batch.observations[0][1], observation())


def test_a_later_encoding_is_a_refused_row_and_no_lost_batch():
    later = encode_observation(observation()) + field(11, 9)
    batch = decode_batch(encode_batch(CAMERA, INCARNATION, [(1, later), (2, encode_observation(observation()))]))
    assert [seq for seq, _ in batch.observations] == [2]
    (refusal,) = batch.unreadable
    assert refusal.seqs == (1,)
    assert re.search(r"number 9.*upgrade", refusal.reason)


def test_a_gap_for_a_reason_of_a_later_version_is_a_gap():
    gap = field(1, 3) + field(2, 5) + field(3, 2) + field(4, 77)
    batch = decode_batch(encode_batch(CAMERA, INCARNATION, []) + field(5, gap))
    assert batch.gaps == (Gap(3, 5, 2, "lost"),)


def test_a_later_version_that_cannot_be_read_says_upgrade():
    with pytest.raises(MessageError, match=r"version 3.*reads 1: upgrade"):
        decode_batch(field(1, 3) + field(2, b"new/camera") + field(3, INCARNATION.encode()))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"{}",
        field(1, 1),
        field(1, 1) + field(2, b"camera"),
        field(1, 1) + field(2, b"\xff\xff") + field(3, b"1"),
        field(1, 1) + field(2, b"a/b") + field(3, b"1"),
        field(1, 1) + field(2, b"..") + field(3, b"1"),
        field(1, 1) + field(2, b"a") + field(3, b"-1"),
        field(2, b"camera") + field(3, b"1"),
        field(1, 1) + field(2, b"camera") + field(3, b"e") + field(4, field(1, 0)),
        field(1, 1) + field(2, b"camera") + field(3, b"e") + field(4, field(1, 2**63)),
        field(1, 1) + field(2, b"camera") + field(3, b"e") + field(5, field(1, 5) + field(2, 4) + field(3, 1)),
        field(1, 1) + field(2, b"camera") + field(3, b"e") + field(5, field(1, 5) + field(2, 5) + field(3, 2)),
        encode_batch(CAMERA, INCARNATION, [], [Gap(1, 2**63 - 1, MOST_IN_GAP + 1, "lost")]),
        encode_batch(CAMERA, INCARNATION, [(1, encode_observation(observation()))])[:-1],
    ],
)
def test_what_is_no_batch_is_a_message_error(payload):
    with pytest.raises(MessageError):
        decode_batch(payload)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (field(6, b"a/b"), "gallery must be 1 to 64 letters.*got 'a/b'"),
        (field(6, b""), "gallery must be"),
        (field(6, b"a") * 9, "at most 8 galleries; got 9"),
        (field(6, b"\xff"), "other bytes"),
    ],
)
def test_a_batch_for_what_is_no_gallery_is_a_message_error(more, message):
    batch = encode_batch(CAMERA, INCARNATION, [])
    assert decode_batch(batch).galleries == ()
    with pytest.raises(MessageError, match=message):
        decode_batch(batch + more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (field(7, b"a b"), "gallery must be 1 to 64 letters.*got 'a b'"),
        (field(8, b""), "replay must be 1 to 64 letters.*got ''"),
        (field(8, field(1, b"../x")), "replay must be"),
        (field(8, field(1, b"x") + field(2, 2**64 - 1)), "since_us must not be negative; got -1"),
    ],
)
def test_an_acknowledgement_with_a_name_or_time_that_is_none_is_a_message_error(more, message):
    ack = encode_ack(Ack(CAMERA, INCARNATION, (1,)))
    assert (decode_ack(ack).gallery, decode_ack(ack).replay) == ("", None)
    with pytest.raises(MessageError, match=message):
        decode_ack(ack + more)


def with_feature(data: bytes, enc: int = 1, dim: int = 4, scale: bytes = b"") -> bytes:
    return (
        encode_observation(observation(feature=unit(4)), "fp32")
        + field(11, enc)
        + field(12, dim)
        + scale
        + field(14, data)
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"\xff", "no observation"),
        (b"", "model_hash must be 32 bytes; got 0"),
        (encode_observation(observation()) + field(1, b"short"), "got 5"),
        (encode_observation(observation()) + field(2, 2**64 - 1), "track must not be negative; got -1"),
        (encode_observation(observation()) + field(3, 2**63), "captured_us must not be negative"),
        (encode_observation(observation()) + field(6, b"\0\0\0\0"), "box must be"),
        (
            encode_observation(observation()) + varint(7 * 8 + 5) + np.float32(1.5).tobytes(),
            "confidence must be 0 to 1",
        ),
        (encode_observation(observation()) + varint(8 * 8 + 5) + np.float32("nan").tobytes(), "quality must be 0 to 1"),
        (encode_observation(observation()) + field(9, 0), "crops must be at least 1; got 0"),
        (encode_observation(observation()) + field(12, 511), "should take 1022 bytes; got 1024"),
        (encode_observation(observation()) + field(12, 2**64 - 2) + field(14, b""), "should take -4 bytes"),
        (with_feature(b"", dim=0), "one row of numbers"),
        (with_feature(unit(16_001).astype("<f4").tobytes(), dim=16_001), "at most 16000 numbers; got 16001"),
        (with_feature(np.array([1, 0, 0, np.nan], "<f4").tobytes()), "length 1; got nan"),
        (with_feature(np.array([1, 0, 0, np.inf], "<f4").tobytes()), "length 1; got inf"),
        (with_feature(np.array([1, 0, 0, 3e38], "<f4").tobytes()), "length 1; got inf"),
        (with_feature(np.array([0.5, 0, 0, 0], "<f4").tobytes()), "length 1; got 0.5. Normalise"),
        (with_feature(np.zeros(4, "<f4").tobytes()), "length 1; got 0"),
        (with_feature(b"\x7f\0\0\0", enc=3), "length 1; got 0"),
    ],
)
def test_a_row_that_cannot_be_read_spoils_no_other(row, reason):
    batch = decode_batch(encode_batch(CAMERA, INCARNATION, [(8, row), (9, encode_observation(observation()))]))
    assert [seq for seq, _ in batch.observations] == [9]
    (refusal,) = batch.unreadable
    assert refusal.seqs == (8,)
    assert reason in refusal.reason
    with pytest.raises(MessageError):
        decode_observation(row)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_hash": "ab"}, "64 hexadecimal digits; got 'ab'"),
        ({"model_hash": "AB" * 32}, "64 hexadecimal"),
        ({"track": -1}, "track must not be negative"),
        ({"track": 2**63}, "cannot send"),
        ({"captured_us": 1.5}, "cannot send"),
        ({"box": (0.1, 0.2, 0.3)}, "box must be"),
        ({"box": (0.5, 0.2, 0.4, 0.3)}, "box must be"),
        ({"box": (0.1, 0.2, 0.3, 1.001)}, "box must be"),
        ({"box": (0.1, 0.2, 0.3, float("nan"))}, "box must be"),
        ({"confidence": 1.2}, "confidence must be"),
        ({"quality": -0.1}, "quality must be"),
        ({"crops": 0}, "crops must be"),
        ({"feature": np.ones(4, np.float32)}, "length 1; got 2"),
        ({"feature": np.zeros(4, np.float32)}, "length 1; got 0"),
        ({"feature": np.eye(2, dtype=np.float32)}, r"shape \(2, 2\)"),
        ({"feature": np.zeros(0, np.float32)}, r"shape \(0,\)"),
    ],
)
def test_what_cannot_be_sent_is_an_error_at_once(changes, message):
    for encoding in ENCODINGS:
        with pytest.raises(MessageError, match=message):
            encode_observation(observation(**changes), encoding)


def test_names_and_numbers_that_cannot_be_sent_are_errors():
    with pytest.raises(MessageError, match="encoding must be one of fp32, fp16, int8; got 'bf16'"):
        encode_observation(observation(), "bf16")  # type: ignore[arg-type]
    for camera in ("", "a/b", "#", "ü", "a" * 65, "a\n", ".", "..", ".a", "-a"):
        with pytest.raises(MessageError, match="camera must be 1 to 64 letters"):
            encode_batch(camera, INCARNATION, [])
        with pytest.raises(MessageError, match="camera must be"):
            encode_ack(Ack(camera, INCARNATION, ()))
    with pytest.raises(MessageError):
        encode_batch(CAMERA, INCARNATION, [(2**63, b"")])
    with pytest.raises(MessageError, match="at most 8 galleries; got 9"):
        encode_batch(CAMERA, INCARNATION, [], galleries=["a"] * 9)
    for gallery in ("a/b", " ", "a" * 65):
        with pytest.raises(MessageError, match="gallery must be"):
            encode_batch(CAMERA, INCARNATION, [], galleries=[gallery])
        with pytest.raises(MessageError, match="gallery must be"):
            encode_ack(Ack(CAMERA, INCARNATION, (), gallery=gallery))
    with pytest.raises(MessageError, match="replay must be"):
        encode_ack(Ack(CAMERA, INCARNATION, (), replay=Replay("", 0)))
    with pytest.raises(MessageError, match="since_us must not be negative"):
        encode_ack(Ack(CAMERA, INCARNATION, (), replay=Replay("a", -1)))


@given(st.binary(max_size=300))
def test_random_bytes_are_messages_or_message_errors(payload):
    for decode in (decode_batch, decode_ack, decode_observation):
        with contextlib.suppress(MessageError):
            decode(payload)


@given(
    st.sampled_from(ENCODINGS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    st.floats(0.5, 1),
)
@settings(max_examples=300)
def test_damaged_messages_are_messages_or_message_errors(encoding, damage, kept):
    rows = [(seq, encode_observation(observation(feature=unit(8)), encoding)) for seq in (1, 2)]
    for payload, decode in (
        (encode_batch(CAMERA, INCARNATION, rows, [Gap(1, 2, 1, "full")], galleries=["g"]), decode_batch),
        (encode_ack(Ack(CAMERA, INCARNATION, (1, 2), ((1, 2),), (Refusal((3,), "no"),), "g", REPLAY)), decode_ack),
        (rows[0][1], decode_observation),
    ):
        damaged = bytearray(payload)
        for place, byte in damage:
            damaged[int(place * len(damaged))] = byte
        with contextlib.suppress(MessageError):
            decode(bytes(damaged[: int(kept * len(damaged))]))


def test_int8_keeps_length_one_and_is_close():
    feature = unit()
    decoded = decode_observation(encode_observation(observation(feature=feature), "int8")).feature
    assert abs(np.linalg.norm(decoded.astype(np.float64)) - 1) < 1e-6
    steps = np.rint(feature * (127 / abs(feature).max()))
    expected = steps @ feature / np.linalg.norm(steps)
    assert decoded @ feature == pytest.approx(expected, abs=1e-6)
    assert expected > 0.9999


def test_no_field_could_hold_a_picture():
    # A crop of the smallest input that the networks take is 24 kB; 512 numbers are at most 2 kB.
    assert {one.name for one in dataclasses.fields(Observation)} == {
        *("model_hash", "track", "captured_us", "first_us", "last_us", "box", "confidence", "quality", "crops"),
        *("final", "feature"),
    }
    assert {one.name for one in dataclasses.fields(Batch)} == {
        "camera",
        "incarnation",
        "observations",
        "gaps",
        "unreadable",
        "galleries",
    }
    assert {one.name for one in dataclasses.fields(Ack)} == {
        *("camera", "incarnation", "seqs", "gaps", "refused", "gallery", "replay"),
    }
    assert {one.name for one in dataclasses.fields(Replay)} == {"id", "since_us"}
