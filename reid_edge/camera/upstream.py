"""From the settings to a way upstream."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reid_edge.camera.settings import AgentSettings, CameraSettings, UpstreamSettings
from reid_edge.errors import SettingsError, StoreError
from reid_edge.redaction import redacted, without_passwords
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from reid_edge.upstream.transport import Transport

if TYPE_CHECKING:
    from reid_edge.gallery.collector import Collector

log = logging.getLogger(__name__)

SCHEMES = ("mqtts", "https", "sqlite", "postgresql", "milvus", "mqtt", "http")


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
