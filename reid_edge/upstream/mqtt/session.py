"""One MQTT 5 connection, from connecting to its end.  This is the only file that uses paho.

Every connection has a paho client of its own and starts clean; paho's own reconnecting stays off.  It has no jitter,
and it would send messages again that an earlier connection left behind, which the outbox does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reid_edge.errors import BatchTooLargeError, MissingExtraError, TransportError
from reid_edge.upstream.dialling import connected
from reid_edge.upstream.tls import Endpoint, certificate_advice
from reid_edge.wording import counted

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

#: Reason codes of MQTT 5 (section 2.4) that trying again does not change.
PERMANENT_CODES = frozenset({0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 0x8F, 0x90, 0x95, 0x99, 0x9B, 0x9E})
_CALLBACKS = ("on_connect", "on_subscribe", "on_message", "on_publish", "on_disconnect")
_KEEPALIVE_S = 30
#: Seconds to connect, the look-up of the name and TLS included, and again until the subscription is granted.
_CONNECT_S = 10.0
#: Seconds without a confirmation, while the broker owes one.
_CONFIRM_S = 60.0
_GOODBYE_S = 2.0
_TURN_S = 1.0
#: Seconds after which the broker drops a message that it could not pass on; the sender sends it again.
_EXPIRY_S = 60
#: Bytes: MQTT's own limit of a packet, and what a PUBLISH holds besides topic and payload: the fixed header with the
#: length, the topic's length, the packet's number, and the expiry as its one property.
_LARGEST = 268_435_455
_PUBLISH_BYTES = 5 + 2 + 2 + 1 + 5
#: Reason codes of MQTT 5 (section 2.4).
TAKEN_OVER, TOO_LARGE = 0x8E, 0x95
_KEEPALIVE_TIMEOUT = 0x8D


class MqttSession:
    """One connection with one subscription.

    Args:
        where: The broker's address.
        context: TLS; None connects in plain text.
        client_id: Unique at the broker.
        subscription: Topic to subscribe to; the session is ready when the broker has granted it.
        on_message: Called with this, topic, payload and number in the thread of :meth:`run`; must not block.
        on_ready: Called in the same thread once the subscription is granted.
        window: Most messages that may be unconfirmed, in either direction; the broker may allow fewer.
        confirm: Messages are confirmed to the broker by :meth:`confirm` alone; else on arrival.
        most_incoming: Largest packet that is taken from the broker, bytes.
        extra: Extra of reid-edge that installs paho-mqtt, for the message of MissingExtraError.

    Attributes:
        failure: Why it ended; empty before.
        permanent: It will fail again until a person has fixed something.
        verdicts: The broker's reason codes for published messages with their sizes, oldest first; the reader removes
            them.
        unconfirmed: Sizes of the published messages that wait for a verdict, oldest first.
        taken_over: Another client has connected under this one's name.
        too_large: The broker ended the connection for the size of a message.
        dropped: The broker, once it had granted the subscription, ended the connection without a word.

    Raises:
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        where: Endpoint,
        context: ssl.SSLContext | None,
        *,
        client_id: str,
        subscription: str,
        on_message: Callable[[MqttSession, str, bytes, int], None],
        on_ready: Callable[[], None],
        window: int,
        confirm: bool,
        most_incoming: int,
        extra: str,
    ) -> None:
        self.failure = ""
        self.permanent = self.taken_over = self.too_large = self.dropped = False
        self.verdicts: deque[tuple[int, int]] = deque()
        self.unconfirmed: deque[int] = deque()
        self._where, self._subscription = where, subscription
        self._pass_on, self._on_ready = on_message, on_ready
        self._most = window
        self._window = threading.Semaphore(0)
        self._largest, self._most_incoming = _LARGEST, most_incoming
        self._qos, self._granted = 1, False
        self._deadline = math.inf
        self._progress_s = 0.0
        self._leaving = False
        self._encrypted, self._answered = context is not None, False
        self._errors = _LastError()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._client = self._make_client(client_id, context, confirm=confirm, extra=extra)
        self._connecting = _properties(
            "CONNECT", SessionExpiryInterval=0, ReceiveMaximum=window, MaximumPacketSize=most_incoming
        )
        self._publishing = _properties("PUBLISH", MessageExpiryInterval=_EXPIRY_S)

    def run(self, on_verdicts: Callable[[], None]) -> None:
        """Connect and serve until the connection ends; ``failure`` says why it did.

        Args:
            on_verdicts: Called in this thread when ``verdicts`` may have grown.
        """
        try:
            self._client.connect(self._where.host, self._where.port, _KEEPALIVE_S, properties=self._connecting)
            self._deadline = time.monotonic() + (_GOODBYE_S if self._leaving else _CONNECT_S)
            self._serve(on_verdicts)
            self._fail(*self._lost())
        except OSError as error:
            advice = certificate_advice(str(error), "broker")
            self._fail(f"cannot connect: {error}{advice}", isinstance(error, ssl.SSLCertVerificationError))
        finally:
            # So that this object and the client do not keep one another alive.
            for name in _CALLBACKS:
                setattr(self._client, name, None)
            self._client.on_socket_register_write = None
            self._wake_reader.close()
            self._wake_writer.close()

    def largest_payload(self, topic: str) -> int:
        """Return the size of the largest message to a topic that the broker takes; known once it has answered."""
        return max(0, self._largest - _PUBLISH_BYTES - len(topic.encode()))

    def publish(self, topic: str, payload: bytes, *, timeout_s: float) -> None:
        """Queue a message, with QoS 1 if the broker has that; its verdict comes later.  For one thread.

        Raises:
            BatchTooLargeError: The broker does not take so large a message.
            TransportError: The broker confirms too slowly, or paho refuses the message.
        """
        if len(payload) > (most := self.largest_payload(topic)):
            raise BatchTooLargeError(
                f"a message of {len(payload)} bytes is larger than the {most} that the broker takes: raise its "
                "max_packet_size"
            )
        if not self._window.acquire(timeout=max(0.0, timeout_s)):
            raise TransportError("the broker does not confirm earlier messages")
        if not self.unconfirmed:
            self._progress_s = time.monotonic()
        self.unconfirmed.append(len(payload))  # before: the verdict may be quicker than the return
        info = self._client.publish(topic, payload, qos=self._qos, properties=self._publishing)
        if info.rc:
            raise TransportError(f"paho refused the message: {info.rc!s}")

    def confirm(self, number: int) -> None:
        """Confirm a received message to the broker; one without a number came with QoS 0."""
        if number:
            self._client.ack(number, 1)

    def flush(self, timeout_s: float) -> None:
        """Wait until the broker has confirmed all published messages; none can be published afterwards.

        Without this the broker may lose messages that it has not read when the connection closes.
        """
        deadline = time.monotonic() + timeout_s
        for _ in range(self._most):
            if self.failure or not self._window.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return

    def disconnect(self) -> None:
        """Disconnect; :meth:`run` returns soon."""
        self._leaving = True
        self._deadline = time.monotonic() + _GOODBYE_S
        self._client.disconnect()

    def _serve(self, on_verdicts: Callable[[], None]) -> None:
        # Not paho's own loop: that uses select(), which fails in a process with more than 1,024 open files.
        sock: Any = self._client.socket()
        with selectors.DefaultSelector() as selector, sock:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(sock, selectors.EVENT_READ)
            while not self.failure and self._turn(selector, sock):
                on_verdicts()
                self._check_progress()
            on_verdicts()

    def _check_progress(self) -> None:
        now_s = time.monotonic()
        if now_s > self._deadline:
            self._fail("no answer in time")
        elif self.unconfirmed and now_s - self._progress_s > _CONFIRM_S:
            self._fail(
                f"the broker has confirmed none of {counted(len(self.unconfirmed), 'message')} for {_CONFIRM_S:g} s"
            )

    def _turn(self, selector: selectors.BaseSelector, sock: Any) -> bool:
        """Wait until there is something to read or write, and do it; return False once the connection has ended."""
        client = self._client
        if client.socket() is None:
            return False
        selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0))
        decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = {key.fileobj: events for key, events in selector.select(0 if decrypted else _TURN_S)}
        if woken := self._wake_reader in ready:
            self._wake_reader.recv(4096)
        if (decrypted or ready.get(sock, 0) & selectors.EVENT_READ) and client.loop_read() != 0:
            return False
        # Also when nothing is left to write: paho calls _wake again only after this.
        if (woken or client.want_write()) and client.loop_write() != 0:
            return False
        return client.loop_misc() == 0

    def _wake(self, *_arguments: object) -> None:
        # Full: it will wake anyway.  Closed: the connection has ended.
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"w")

    def _make_client(self, client_id: str, context: ssl.SSLContext | None, *, confirm: bool, extra: str) -> Client:
        try:
            from paho.mqtt.client import Client, MQTTv5
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise MissingExtraError("paho-mqtt", extra, "MQTT") from error
        client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5, reconnect_on_failure=False, manual_ack=confirm
        )
        # paho's own has no deadline over the look-up of the name, all addresses and TLS together.
        client._create_socket = lambda: self._connected(context)  # type: ignore[method-assign]
        receive = client._sock_recv
        client._sock_recv = lambda bufsize: self._received(receive, bufsize)  # type: ignore[method-assign]
        client.max_inflight_messages = 0  # paho reads no limit of the broker's: ours is the window
        client.enable_logger(self._errors.logger)
        # With this set, other threads only queue what they publish, and the thread of run() alone writes.
        client.on_socket_register_write = self._wake
        for name in _CALLBACKS:
            setattr(client, name, getattr(self, f"_{name}"))
        return client

    def _connected(self, context: ssl.SSLContext | None) -> socket.socket:
        deadline = time.monotonic() + _CONNECT_S
        connection = connected(self._where.host, self._where.port, _CONNECT_S)
        if context is None:
            return connection
        with contextlib.ExitStack() as closing:
            closing.enter_context(connection)
            connection.settimeout(max(0.1, deadline - time.monotonic()))  # of the whole handshake
            encrypted = context.wrap_socket(connection, server_hostname=self._where.host)
            closing.pop_all()
            return encrypted

    def _received(self, receive: Callable[[int], bytes], size: int) -> bytes:
        """Receive for paho, which would take a packet of any size."""
        coming = self._client._in_packet["remaining_length"]
        if coming > self._most_incoming:
            self._fail(f"the broker sends a packet of {coming} bytes, more than the {self._most_incoming} asked for")
            raise ConnectionAbortedError
        return receive(size)

    def _lost(self) -> tuple[str, bool]:
        """Return why the connection broke, and whether only a person can fix it."""
        # With TLS 1.3 a broker rejects a certificate only after the handshake.
        text = self._errors.text or "connection lost"
        if self._encrypted and not self._answered:
            advice = certificate_advice(text, "broker") or "; the broker may not accept this certificate"
            return text + advice, "alert" in text.lower()
        return text, False

    def _fail(self, failure: str, permanent: bool = False) -> None:
        if not self.failure:
            self.failure, self.permanent = failure, permanent

    # paho calls these in the thread of run(), some while holding its own locks: they take none.

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._answered = True
        if code.is_failure:
            self._fail(f"the broker refused the connection: {code}", code.value in PERMANENT_CODES)
            return
        self._most = min(self._most, getattr(properties, "ReceiveMaximum", self._most))
        self._largest = min(self._largest, getattr(properties, "MaximumPacketSize", self._largest))
        self._qos = min(self._qos, getattr(properties, "MaximumQoS", self._qos))
        client.subscribe(self._subscription, qos=1)

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(code.is_failure for code in codes):
            self._fail(f"the broker refused the subscription to {self._subscription}: {codes[0]}", True)
            return
        if not self._leaving:
            self._deadline = math.inf
        self._granted = True
        self._window.release(self._most)
        self._on_ready()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._pass_on(self, message.topic, bytes(message.payload), message.mid)

    def _on_publish(
        self, _client: Client, _data: Any, _mid: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._window.release()
        self._progress_s = time.monotonic()
        # Verdicts come in the order of the messages (MQTT 5, section 4.6).
        self.verdicts.append((code.value, self.unconfirmed.popleft()))

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.taken_over, self.too_large = code.value == TAKEN_OVER, code.value == TOO_LARGE
            self._fail(f"the broker ended the connection: {code}", code.value in PERMANENT_CODES)
        elif code.value == _KEEPALIVE_TIMEOUT:
            self._fail(f"the broker has not answered for {_KEEPALIVE_S} s")
        else:
            self.dropped = self._granted and not self._leaving


class _LastError(logging.Handler):
    """Keeps the last error that paho logged, the only place where paho says why a connection broke."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""
        self.logger = logging.Logger("paho", logging.ERROR)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _properties(packet: str, **values: int) -> Properties:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
