"""An MQTT connection that is kept up: after a loss it reconnects, after a longer pause each time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reid_edge.backoff import TRANSIENT_S, Backoff
from reid_edge.errors import SettingsError, TransportError
from reid_edge.upstream.batch_limit import MOST_BATCH_BYTES
from reid_edge.upstream.mqtt.session import TOO_LARGE, MqttSession
from reid_edge.upstream.mqtt.trouble import Rivalry, SilentSizeLimit
from reid_edge.upstream.tls import TlsFiles, client_context, endpoint

LOG = logging.getLogger(__name__)
#: Seconds that a connection must last for earlier failures to be forgotten.
#: Schemes, with the default port of each.
PORTS = {"mqtts": 8883, "mqtt": 1883}
_STABLE_S = 30.0
_FLUSH_S = 2.0
#: Bytes of a packet: the largest batch, with topic and properties.
_MOST_INCOMING = MOST_BATCH_BYTES + 4096
_CLOSE_S = 5.0


@dataclass(frozen=True, eq=False)
class Message:
    """A received message; ``session`` and ``number`` serve to confirm it."""

    topic: str
    payload: bytes
    number: int = field(repr=False)
    session: MqttSession = field(repr=False)


class MqttLink:
    """A connection to a broker with one subscription, in a thread of its own.

    Args:
        uri: ``mqtts://HOST[:8883]``, or ``mqtt://HOST[:1883]`` on loopback with ``insecure``.
        client_id: Unique at the broker.
        subscription: Topic to subscribe to; nothing is published before the broker grants it.
        tls: Certificates; read anew for every connection, so that renewed ones come into use.
        insecure: Allow plain text on loopback.
        on_message: Called in the link's thread for each message received; must not block.
        on_verdict: Called in the link's thread with the broker's reason code for each message published.
        on_too_large: Called in the link's thread with the size of a message for which the broker seems to have ended
            the connection, or to which it has answered that it is too large.
        window: Most messages that may be unconfirmed by the broker; fewer if it allows fewer.
        confirm: Messages are confirmed to the broker by :meth:`confirm` alone, so that at most ``window`` are here.
        most_incoming: Largest packet that is taken from the broker, bytes.
        namesake: What to do about another client of the same name, for a person.
        extra: Extra of reid-edge that installs paho-mqtt, for the message of MissingExtraError.
        backoff_s: Seconds of the first and the longest pause between attempts.

    Attributes:
        backoff: Counts failed and lost connections, with the last reason.
        connects: Number of times that it was connected and subscribed.

    Raises:
        SettingsError: The address or the certificates cannot be used.
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
        on_too_large: Callable[[int], None] = lambda _size: None,
        most_incoming: int = _MOST_INCOMING,
        namesake: str = "give each client a certificate of its own",
        backoff_s: tuple[float, float] = TRANSIENT_S,
    ) -> None:
        self.uri = uri
        self.connects = 0
        self.backoff = Backoff(LOG, transient_s=backoff_s)
        self._endpoint = endpoint(uri, PORTS, tls, insecure=insecure)
        self._tls = tls if self._endpoint.secure else None
        self._client_id, self._subscription = client_id, subscription
        self._on_message, self._on_verdict, self._on_too_large = on_message, on_verdict, on_too_large
        self._window, self._confirm, self._extra = window, confirm, extra
        self._most_incoming = most_incoming
        self._size_limit = SilentSizeLimit()
        self._rivalry = Rivalry(client_id, uri, namesake)
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._leave_s: dict[MqttSession, float] = {}
        # Made here, so that wrong settings raise here, and not in the thread.
        self._session = self._new_session()
        self._thread = threading.Thread(target=self._run, name=f"mqtt {client_id}", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """True if messages can be published and received now."""
        return self._ready.is_set()

    @property
    def conflict(self) -> str:
        """Trouble that lasts though it may be connected now, another client of its name; empty if there is none."""
        return self._rivalry.problem

    def largest_payload(self, topic: str) -> int:
        """Return the size of the largest message to a topic that the broker takes, or took at the last connection."""
        return self._session.largest_payload(topic)

    def publish(self, topic: str, payload: bytes, *, timeout_s: float) -> None:
        """Hand a message to the broker with QoS 1; its verdict comes later, by ``on_verdict``.

        Raises:
            BatchTooLargeError: The broker does not take so large a message.
            TransportError: Not connected within the timeout, or the broker confirms too slowly.
        """
        deadline = time.monotonic() + timeout_s
        if not self._ready.wait(timeout_s):
            reason = self.backoff.reason.removeprefix(f"{self.uri}: ") or "no attempt has ended yet"
            raise TransportError(f"{self.uri}: not connected: {reason}.")
        try:
            self._session.publish(topic, payload, timeout_s=deadline - time.monotonic())
        except TransportError as error:
            raise type(error)(f"{self.uri}: {error}.") from error

    def confirm(self, message: Message) -> None:
        """Confirm a message to the broker, unless its connection has ended."""
        if message.session is self._session:
            message.session.confirm(message.number)

    def leave(self, pause_s: float) -> None:
        """Disconnect, and reconnect after ``pause_s``."""
        session = self._session
        self._leave_s[session] = pause_s
        self._ready.clear()
        session.disconnect()

    def retry_now(self) -> None:
        """End a pause, e.g. after certificates were renewed or the network came back."""
        self._wake.set()

    def close(self) -> None:
        """Wait briefly until the broker has confirmed what was published, disconnect, and end the thread."""
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
            most_incoming=self._most_incoming,
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
                self._wake.wait(self._pause(failure, permanent, time.monotonic() - start))

    def _serve(self, session: MqttSession | None) -> tuple[str, bool]:
        """Serve one connection; returns why it ended, and whether it fails until a person has fixed something."""
        try:
            session = self._session = session or self._new_session()
            if not self._stop.is_set():
                session.run(self._pass_on_verdicts)
        except SettingsError as error:
            return str(error), True
        except Exception as error:  # the thread's last resort: a broker that sends what paho cannot read
            LOG.exception("%s: unexpected error in the connection", self.uri)
            return f"{type(error).__name__}: {error}", False
        return session.failure, session.permanent

    def _pause(self, failure: str, permanent: bool, lasted_s: float) -> float:
        session, pause_s = self._session, self._leave_s.pop(self._session, 0.0)
        self._leave_s.clear()
        if pause_s:
            return pause_s
        if size := self._size_limit.ended(session.unconfirmed, certain=session.too_large):
            self._on_too_large(size)
        if session.taken_over or not self._size_limit.suspected:
            rivals_s = self._rivalry.ended(lasted_s, taken_over=session.taken_over, dropped=session.dropped)
        else:
            rivals_s = 0.0
        if rivals_s:
            return self.backoff.failed(self._rivalry.problem, permanent=True, at_least_s=rivals_s)
        return self.backoff.failed(f"{self.uri}: {failure}", permanent=permanent)

    def _on_session_message(self, session: MqttSession, topic: str, payload: bytes, number: int) -> None:
        self._on_message(Message(topic, payload, number, session))

    def _on_session_ready(self) -> None:
        self.connects += 1
        self._ready.set()
        LOG.info("connected to %s", self.uri)

    def _pass_on_verdicts(self) -> None:
        verdicts = self._session.verdicts
        while verdicts:
            code, size = verdicts.popleft()
            self.backoff.succeeded()
            if code == TOO_LARGE:
                self._on_too_large(size)
            else:
                self._size_limit.confirmed(size)
                self._on_verdict(code)
