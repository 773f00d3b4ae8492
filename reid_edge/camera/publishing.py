"""Publication of observations: writing them to the outbox, and opening the transport that delivers them."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_edge.camera.settings import AgentSettings, CameraSettings, UpstreamSettings
from reid_edge.errors import MessageError, OutboxError, SettingsError, StoreError
from reid_edge.redaction import redacted, without_passwords
from reid_edge.upstream.message import Encoding, encode_observation
from reid_edge.upstream.observation import Observation
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from reid_edge.upstream.transport import Transport

if TYPE_CHECKING:
    from reid_edge.gallery.collector import Collector

log = logging.getLogger(__name__)

#: Largest number of observations held in memory; above it the oldest are dropped, counted and declared upstream.
MAX_UNWRITTEN = 10_000
SCHEMES = ("mqtts", "https", "sqlite", "postgresql", "milvus", "mqtt", "http")


@dataclass
class PublisherStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        published: Observations written to the outbox.
        unwritten: Observations that wait in memory until the outbox is writable again.
        lost: Observations that were dropped while it was not, or that the wire format cannot hold.
    """

    published: int = 0
    unwritten: int = 0
    lost: int = 0


class Publisher:
    """Writes observations to an outbox, in order, and holds them in memory while it cannot be written.

    To be used by one thread.

    Args:
        outbox: Takes the observations.
        encoding: Encoding of their features.
    """

    def __init__(self, outbox: Outbox, encoding: Encoding) -> None:
        self._outbox = outbox
        self._encoding = encoding
        self._unwritten: deque[Observation] = deque()
        self.stats = PublisherStats()

    def publish(self, observations: Iterable[Observation]) -> None:
        """Write observations, after those that could not be written before."""
        self._unwritten.extend(observations)
        if not self._unwritten:
            return
        try:
            self._put()
        except OutboxError as error:
            if not self.stats.unwritten:
                log.error("the outbox cannot be written, observations wait in memory: %s", error)
            self._make_room()
        self.stats.unwritten = len(self._unwritten)

    def _put(self) -> None:
        try:
            self._outbox.put(tuple(self._unwritten), self._encoding)
        except MessageError:
            self._drop_unsendable()
            self._outbox.put(tuple(self._unwritten), self._encoding)
        self.stats.published += len(self._unwritten)
        self._unwritten.clear()

    def _drop_unsendable(self) -> None:
        """Drop observations that can never be sent, e.g. with a feature that is not finite, so that others can be."""
        sendable: deque[Observation] = deque()
        for observation in self._unwritten:
            try:
                encode_observation(observation, self._encoding)
                sendable.append(observation)
            except MessageError as error:
                log.error("an observation of track %d cannot be sent: %s", observation.track, error)
        self.stats.lost += len(self._unwritten) - len(sendable)
        self._unwritten = sendable

    def _make_room(self) -> None:
        too_many = max(0, len(self._unwritten) - MAX_UNWRITTEN)
        for _ in range(too_many):
            self._unwritten.popleft()
        self.stats.lost += too_many
        self._outbox.lose(too_many)


def name_on_the_wire(camera: CameraSettings) -> str:
    """Return the camera's name, or its pseudonym if the settings name a key.

    Raises:
        SettingsError: The key cannot be read or created.
    """
    if camera.pseudonym_key is None:
        return camera.name
    return camera_pseudonym(camera.name, load_or_create_key(camera.pseudonym_key))


def open_transport(settings: AgentSettings, camera: str, closing: contextlib.ExitStack) -> Transport:
    """Open the transport to the gallery; a gallery that cannot be reached is no error.

    Args:
        settings: All settings of the camera.
        camera: Name on the wire.
        closing: Gets the callbacks that close the transport and its parts.

    Raises:
        SettingsError: The scheme of the URI is unknown, or the connection would not be encrypted.
        StoreError: The gallery's file cannot be opened.
        MissingExtraError: A package that the transport needs is not installed.
    """
    upstream = settings.upstream
    transport = _in_process(upstream.uri, closing) if settings.in_process else _remote(upstream, camera)
    closing.callback(transport.close)
    return transport


def _in_process(uri: str, closing: contextlib.ExitStack) -> Transport:
    from reid_edge.upstream.transport import LocalTransport

    gallery = closing.enter_context(contextlib.closing(_Gallery(uri)))
    try:
        gallery.open()
    except StoreError as error:
        if uri.startswith("sqlite:"):
            raise
        log.warning("features wait in the outbox: %s", error)  # a server that cannot be reached may come back
    transport = LocalTransport(gallery.receive)
    transport.name = without_passwords(uri)  # as it can be typed for 'reid-edge gallery'
    return transport


class _Gallery:
    """A gallery in this process, opened as soon as its store can be reached."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._opened = contextlib.ExitStack()
        self._collector: Collector | None = None

    def open(self) -> Collector:
        from reid_edge.gallery.collector import Collector
        from reid_edge.gallery.store import open_store

        if self._collector is None:
            store = open_store(self._uri, create=True)
            self._opened.callback(store.close)
            self._collector = Collector(store)
            self._opened.enter_context(self._collector.retention.running())
        return self._collector

    def receive(self, batches: Sequence[bytes]) -> list[bytes]:
        return self.open().receive(batches)

    def close(self) -> None:
        self._opened.close()


def _remote(upstream: UpstreamSettings, camera: str) -> Transport:
    scheme = upstream.uri.split(":", 1)[0]
    if scheme in ("mqtt", "mqtts"):
        from reid_edge.upstream.mqtt import MqttTransport

        return MqttTransport(upstream.uri, camera=camera, tls=upstream.tls, insecure=upstream.insecure)
    if scheme in ("http", "https"):
        from reid_edge.upstream.http import HttpTransport

        return HttpTransport(upstream.uri, tls=upstream.tls, insecure=upstream.insecure)
    known = ", ".join(f"{name}:" for name in SCHEMES)
    raise SettingsError(f"upstream.uri: expected one of {known}, got '{redacted(upstream.uri)}'.")
