"""Observations and batches to send, and a client of the broker that shares no code with what is tested."""

from __future__ import annotations

import dataclasses
import queue
import ssl
import time

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from reid_edge.upstream.message import decode_ack, encode_ack, encode_batch, encode_observation
from reid_edge.upstream.observation import Ack, Observation, Refusal
from reid_edge.upstream.tls import TlsFiles
from tests.upstream.observing import observed

INCARNATION = "e0"
#: Long enough for a busy machine; nothing waits for it to pass.
PATIENCE_S = 20.0


def observation(track: int) -> Observation:
    """Return an observation of a track, made now, with a feature of its own that is the same every time."""
    now = time.time_ns() // 1000
    return dataclasses.replace(observed(track, captured_us=now), first_us=now - 1_000_000, final=True)


def batch(camera: str, *seqs: int, incarnation: str = INCARNATION) -> bytes:
    return encode_batch(camera, incarnation, [(seq, encode_observation(observation(seq))) for seq in seqs])


def ack(camera: str, *seqs: int, incarnation: str = INCARNATION, refused: tuple[Refusal, ...] = ()) -> bytes:
    return encode_ack(Ack(camera, incarnation, seqs, (), refused))


def next_acks(transport, count: int = 1) -> list[Ack]:
    """Return the next ``count`` acknowledgements that a transport receives."""
    heard: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(heard) < count:
        assert time.monotonic() < deadline, f"{len(heard)} of {count} acknowledgements came"
        heard += transport.acks(0.5)
    return [decode_ack(each) for each in heard]


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


class Peer:
    """A bare paho client; ``connected``, ``subscribed``, ``published`` queue what the broker answered."""

    def __init__(self, port: int, tls: TlsFiles | None = None, client_id: str = "peer") -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connected: queue.Queue[int] = queue.Queue()
        self.subscribed: queue.Queue[int] = queue.Queue()
        self.published: queue.Queue[int] = queue.Queue()
        self.lost: queue.Queue[int] = queue.Queue()
        self.client = client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        if tls:
            context = ssl.create_default_context(cafile=str(tls.ca))
            context.load_cert_chain(tls.cert, tls.key)
            client.tls_set_context(context)
        client.on_connect = lambda _c, _d, _f, code, _p: self.connected.put(code.value)
        client.on_subscribe = lambda _c, _d, _m, codes, _p: self.subscribed.put(codes[0].value)
        client.on_publish = lambda _c, _d, _m, code, _p: self.published.put(code.value)
        client.on_message = lambda _c, _d, message: self.messages.put((message.topic, message.payload))
        client.on_disconnect = lambda _c, _d, _f, code, _p: self.lost.put(code.value)
        client.connect("localhost" if tls else "127.0.0.1", port)
        client.loop_start()
        self.code = self.connected.get(timeout=PATIENCE_S)

    def subscribe(self, topic: str) -> int:
        self.client.subscribe(topic, qos=1)
        return self.subscribed.get(timeout=PATIENCE_S)

    def publish(self, topic: str, payload: bytes) -> int:
        self.client.publish(topic, payload, qos=1)
        return self.published.get(timeout=PATIENCE_S)

    def next_message(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=PATIENCE_S)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
