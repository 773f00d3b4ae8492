"""Out of the agent: observations into the outbox, and the transport that delivers them."""

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
#: Observations held in memory; above it the oldest go, counted and declared upstream.
MAX_UNWRITTEN = 10_000
SCHEMES = ("mqtts", "https", "sqlite", "postgresql", "milvus", "mqtt", "http")


@dataclass
class PublisherStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        published: Observations that the outbox has taken.
        unwritten: Observations that wait for the outbox to be writable again.
        lost: Observations that had to go while it was not, or that cannot be sent at all.
    """

    published: int = 0
    unwritten: int = 0
    lost: int = 0


class Publisher:
    """Writes to an outbox, in order.  Not for several threads.

    Args:
        outbox: Takes what is published.
        encoding: Of features.
    """

    def __init__(self, outbox: Outbox, encoding: Encoding) -> None:
        self._outbox = outbox
        self._encoding = encoding
        self._unwritten: deque[Observation] = deque()
        self.stats = PublisherStats()

    def publish(self, observations: Iterable[Observation]) -> None:
        """Write these, after what could not be written before."""
        self._unwritten.extend(observations)
        if not self._unwritten:
            return
        try:
            self._put()
        except OutboxError as error:
            if not self.stats.unwritten:
                log.error("observations wait in memory: %s", error)
            self._make_room()
        self.stats.unwritten = len(self._unwritten)

    def _put(self) -> None:
        try:
            self._outbox.put(tuple(self._unwritten), self._encoding)
        except MessageError:
            self._leave_out_unsound()
            self._outbox.put(tuple(self._unwritten), self._encoding)
        self.stats.published += len(self._unwritten)
        self._unwritten.clear()

    def _leave_out_unsound(self) -> None:
        """Drop what can never be sent, e.g. a feature that is not finite, so that it holds up nothing else."""
        sound: deque[Observation] = deque()
        for observation in self._unwritten:
            try:
                encode_observation(observation, self._encoding)
                sound.append(observation)
            except MessageError as error:
                log.error("an observation of track %d cannot be sent: %s", observation.track, error)
        self.stats.lost += len(self._unwritten) - len(sound)
        self._unwritten = sound

    def _make_room(self) -> None:
        too_many = max(0, len(self._unwritten) - MAX_UNWRITTEN)
        for _ in range(too_many):
            self._unwritten.popleft()
        self.stats.lost += too_many
        self._outbox.lose(too_many)


def name_on_the_wire(camera: CameraSettings) -> str:
    """The camera's name, or its pseudonym where there is a key for it.

    Raises:
        SettingsError: The key cannot be read or made.
    """
    if camera.pseudonym_key is None:
        return camera.name
    return camera_pseudonym(camera.name, load_or_create_key(camera.pseudonym_key))


def open_transport(settings: AgentSettings, camera: str, closing: contextlib.ExitStack) -> Transport:
    """Connect, or begin to: a receiving end that is away is no error.

    Args:
        settings: Settings.
        camera: Name on the wire.
        closing: Closes what was opened.

    Raises:
        SettingsError: No such way, or it would send in the clear.
        StoreError: The gallery's file cannot be opened.
        MissingExtraError: A package is not installed.
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
        log.warning("features wait in the outbox: %s", error)  # a server that is away may come back
    transport = LocalTransport(gallery.receive)
    transport.name = without_passwords(uri)  # as it can be typed for 'reid-edge gallery'
    return transport


class _Gallery:
    """A gallery in this process, opened when its store can be reached."""

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
