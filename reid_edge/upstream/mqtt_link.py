"""An MQTT connection that is kept up: after a loss it begins again, later each time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reid_edge.backoff import TRANSIENT_S, Backoff
from reid_edge.errors import SettingsError, TransportError
from reid_edge.upstream.mqtt_session import MqttSession
from reid_edge.upstream.tls import TlsFiles, client_context, endpoint

LOG = logging.getLogger(__name__)
#: Seconds that a connection must last for earlier failures to be forgotten.
_STABLE_S = 30.0
_FLUSH_S = 2.0
_CLOSE_S = 5.0


@dataclass(frozen=True, eq=False)
class Message:
    """What came in; ``session`` and ``number`` are for confirming it."""

    topic: str
    payload: bytes
    number: int = field(repr=False)
    session: MqttSession = field(repr=False)


class MqttLink:
    """A connection with one subscription, in a thread of its own.

    Args:
        uri: ``mqtts://HOST[:8883]``, or ``mqtt://HOST[:1883]`` on loopback with ``insecure``.
        client_id: Unique at the broker.
        subscription: What to subscribe to; nothing is published before it is granted.
        tls: Certificates; read anew for every connection, so that renewed ones come into use.
        insecure: Plain text is allowed on loopback.
        on_message: Called for each message in the link's thread; must not block.
        on_verdict: Called in the link's thread with the broker's reason code for each message published.
        window: At most this many messages may be unconfirmed by the broker, and fewer if it says so.
        confirm: Messages are confirmed to the broker by :meth:`confirm` alone, so that at most ``window`` are here.
        extra: Of reid-edge, in which paho comes.
        backoff_s: The first and the longest pause between attempts.

    Attributes:
        backoff: Failed and lost connections: how many, and why.
        connects: How often it was connected and subscribed.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        uri: str,
        *,
        client_id: str,
        subscription: str,
        tls: TlsFiles | None,
        insecure: bool,
        on_message: Callable[[Message], None],
        on_verdict: Callable[[int], None],
        window: int,
        confirm: bool,
        extra: str,
        backoff_s: tuple[float, float] = TRANSIENT_S,
    ) -> None:
        self.uri = uri
        self.connects = 0
        self.backoff = Backoff(LOG, transient_s=backoff_s)
        self._endpoint = endpoint(uri, {"mqtts": 8883, "mqtt": 1883}, tls, insecure=insecure)
        self._tls = tls if self._endpoint.secure else None
        self._client_id, self._subscription = client_id, subscription
        self._on_message, self._on_verdict = on_message, on_verdict
        self._window, self._confirm, self._extra = window, confirm, extra
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._away: dict[MqttSession, float] = {}
        # Made here, so that what is wrong with the settings shows here, and not in a thread.
        self._session = self._new_session()
        self._thread = threading.Thread(target=self._run, name=f"mqtt {client_id}", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether messages can be published and received now."""
        return self._ready.is_set()

    def publish(self, topic: str, payload: bytes, *, timeout_s: float) -> None:
        """Hand a message to the broker with QoS 1; its verdict comes later, by ``on_verdict``.

        Raises:
            TransportError: Not connected within the timeout, or the broker confirms too slowly.
        """
        deadline = time.monotonic() + timeout_s
        if not self._ready.wait(timeout_s):
            reason = self.backoff.reason.removeprefix(f"{self.uri}: ") or "no attempt has ended yet"
            raise TransportError(f"{self.uri}: not connected: {reason}.")
        try:
            self._session.publish(topic, payload, timeout_s=deadline - time.monotonic())
        except TransportError as error:
            raise TransportError(f"{self.uri}: {error}.") from error

    def confirm(self, message: Message) -> None:
        """Tell the broker that a message is done with, unless its connection has gone."""
        if message.session is self._session:
            message.session.confirm(message.number)

    def leave(self, away_s: float) -> None:
        """Disconnect, and come back after so many seconds."""
        session = self._session
        self._away[session] = away_s
        self._ready.clear()
        session.disconnect()

    def retry_now(self) -> None:
        """End a pause, e.g. when certificates were renewed or the network came back."""
        self._wake.set()

    def close(self) -> None:
        """Wait a little until the broker has what was published, disconnect, end the thread."""
        if self._ready.is_set():
            self._session.flush(_FLUSH_S)
        self._stop.set()
        self._wake.set()
        self._session.disconnect()
        # Not for ever: it may be waiting for an address to be looked up.
        self._thread.join(_CLOSE_S)

    def _new_session(self) -> MqttSession:
        return MqttSession(
            self._endpoint,
            client_context(self._tls) if self._tls else None,
            client_id=self._client_id,
            subscription=self._subscription,
            on_message=self._on_session_message,
            on_ready=self._on_session_ready,
            window=self._window,
            confirm=self._confirm,
            extra=self._extra,
        )

    def _run(self) -> None:
        session: MqttSession | None = self._session
        while not self._stop.is_set():
            start = time.monotonic()
            failure, permanent = self._serve(session)
            session = None
            self._ready.clear()
            if time.monotonic() - start > _STABLE_S:
                self.backoff.succeeded()
            self._wake.clear()  # before looking at _stop, which close() sets first
            if not self._stop.is_set():
                self._wake.wait(self._pause(failure, permanent))

    def _serve(self, session: MqttSession | None) -> tuple[str, bool]:
        """One connection, from its files to its end; returns why it ended, and whether trying again is in vain."""
        try:
            session = self._session = session or self._new_session()
            if not self._stop.is_set():
                session.run(self._pass_on_verdicts)
        except SettingsError as error:
            return str(error), True
        except Exception as error:  # the thread's last resort: a broker that sends what paho cannot read
            LOG.exception("%s: the connection failed in an unforeseen way", self.uri)
            return f"{type(error).__name__}: {error}", False
        return session.failure, session.permanent

    def _pause(self, failure: str, permanent: bool) -> float:
        away_s = self._away.pop(self._session, 0.0)
        self._away.clear()
        return away_s or self.backoff.failed(f"{self.uri}: {failure}", permanent=permanent)

    def _on_session_message(self, session: MqttSession, topic: str, payload: bytes, number: int) -> None:
        self._on_message(Message(topic, payload, number, session))

    def _on_session_ready(self) -> None:
        self.connects += 1
        self._ready.set()
        LOG.info("connected to %s", self.uri)

    def _pass_on_verdicts(self) -> None:
        verdicts = self._session.verdicts
        while verdicts:
            self.backoff.succeeded()
            self._on_verdict(verdicts.popleft())
