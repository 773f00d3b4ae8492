"""From the settings to a way upstream."""

from __future__ import annotations

import contextlib

from reid_edge.camera.config import AgentConfig, CameraSection, UpstreamSection
from reid_edge.errors import SettingsError
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from reid_edge.upstream.transports import Transport

SCHEMES = ("mqtts", "https", "sqlite", "postgresql", "milvus", "mqtt", "http")


def name_on_the_wire(camera: CameraSection) -> str:
    """The camera's name, or its pseudonym where there is a key for it.

    Raises:
        SettingsError: The key cannot be read or made.
    """
    if camera.pseudonym_key is None:
        return camera.name
    return camera_pseudonym(camera.name, load_or_create_key(camera.pseudonym_key))


def open_transport(config: AgentConfig, camera: str, closing: contextlib.ExitStack) -> Transport:
    """Connect, or begin to: a receiving end that is away is no error.

    Args:
        config: Settings.
        camera: Name on the wire.
        closing: Closes what was opened.

    Raises:
        SettingsError: No such way, or it would send in the clear.
        StoreError: The store in this process cannot be opened.
        MissingExtraError: A package is not installed.
    """
    upstream = config.upstream
    transport = _in_process(upstream.uri, closing) if config.in_process else _remote(upstream, camera)
    closing.callback(transport.close)
    return transport


def _in_process(uri: str, closing: contextlib.ExitStack) -> Transport:
    from reid_edge.gallery.collector import Collector
    from reid_edge.gallery.store import open_store
    from reid_edge.upstream.transports.local import LocalTransport

    store = open_store(uri, create=True)
    closing.callback(store.close)
    collector = Collector(store)
    closing.enter_context(collector.retention.running())
    return LocalTransport(collector.receive)


def _remote(upstream: UpstreamSection, camera: str) -> Transport:
    scheme = upstream.uri.split(":", 1)[0]
    if scheme in ("mqtt", "mqtts"):
        from reid_edge.upstream.transports.mqtt import MqttTransport

        return MqttTransport(upstream.uri, camera=camera, tls=upstream.tls, insecure=upstream.insecure)
    if scheme in ("http", "https"):
        from reid_edge.upstream.transports.http import HttpTransport

        return HttpTransport(upstream.uri, tls=upstream.tls, insecure=upstream.insecure)
    known = ", ".join(f"{name}:" for name in SCHEMES)
    raise SettingsError(f"upstream.uri: expected one of {known}, got '{upstream.uri}'.")
