"""The gallery by MQTT 5: takes batches from a broker, and acknowledges them to the cameras after the commit.

The collectors of a group share one subscription.  Their sessions end with their connections, so that the broker never
keeps messages for a collector that has disconnected: if none is left, cameras get the reason code 0x10 and keep their
rows; if one of several leaves, the others get its share.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from reid_edge.backoff import TRANSIENT_S, Backoff
from reid_edge.errors import SettingsError, StoreError, TransportError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.people_messages import event_payload, people_topic
from reid_edge.gallery.store.people import PersonEvent
from reid_edge.sparse_log import SparseLog
from reid_edge.upstream.mqtt import NOT_AUTHORISED, Message, MqttLink, acknowledgements_topic, observations_topic
from reid_edge.upstream.tls import TlsFiles
from reid_edge.wire_names import checked_wire_name
from reid_edge.wording import counted

LOG = logging.getLogger(__name__)

#: Most batches under way from the broker, or received and not yet stored.
_WINDOW = 200
#: Most bytes of one commit, so that memory and the wait for an acknowledgement stay bounded.
_MOST_BYTES = 8 * 2**20
#: Most bytes that are here of one camera, which sends up to 64 batches of 80 KB ahead, and of all; more is dropped, and
#: the camera sends it again.
_MOST_OF_A_CAMERA, _MOST_HELD = 8 * 2**20, 64 * 2**20
_MOST_BATCH_BYTES = 4 * 2**20
#: A commit that runs for longer is no reason to keep a share of the group's messages.
_STUCK_S = 30.0
_ACK_TIMEOUT_S = 5.0
#: Longest wait for the last commit at a stop; cameras send again what is not acknowledged.
_CLOSE_S = 10.0


@dataclass
class MqttCollectorStats:
    """Counts since the start.

    Attributes:
        messages: Messages taken from the broker.
        dropped: Messages that were too large, or too much of one camera; not acknowledged.
        commits: Groups of messages handed to the collector.
        acknowledged: Acknowledgements published.
        unanswered: Acknowledgements that could not be published: the cameras send those batches again.
        failures: Commits that failed.
    """

    messages: int = 0
    dropped: int = 0
    commits: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    failures: int = 0


class MqttCollector:
    """Feeds a collector from ``$share/<group>/reid/v1/+/obs`` and answers on ``reid/v1/<camera>/ack``.

    When the store fails it disconnects from the broker for a while, instead of taking batches that it cannot keep.

    Args:
        collector: Stores the batches.
        uri: ``mqtts://HOST[:8883]``, or ``mqtt://HOST[:1883]`` on loopback with ``insecure``.
        group: Name of the gallery, which is also that of the group of collectors that share its work; None: the
            collector's.  Each group gets everything, and stores what is for it.
        tls: Certificates.
        insecure: Plain text is allowed on loopback.
        backoff_s: The first and the longest pause after a lost connection or a failed commit.

    Attributes:
        stats: Counts.
        link: The connection.
        backoff: Number of failed commits, and the reason of the last.
        answers: Number of acknowledgements that the broker refused, and the reason of the last.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        collector: Collector,
        uri: str,
        *,
        group: str | None = None,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        backoff_s: tuple[float, float] = TRANSIENT_S,
    ) -> None:
        self.stats = MqttCollectorStats()
        self.backoff = Backoff(LOG, transient_s=backoff_s)
        self.answers = Backoff(LOG)
        self._collector = collector
        self._group = group = checked_wire_name(group or collector.name, "the name of a gallery", SettingsError)
        self._queue: queue.SimpleQueue[Message | PersonEvent | None] = queue.SimpleQueue()
        self._held: Counter[str] = Counter()
        self._holding = threading.Lock()
        self._log = SparseLog(LOG)
        self.link = MqttLink(
            uri,
            # With TLS the broker puts the certificate's common name in its place.
            client_id=f"{group}-{uuid.uuid4().hex[:12]}",
            subscription=f"$share/{group}/{observations_topic('+')}",
            tls=tls,
            insecure=insecure,
            on_message=self._take,
            on_verdict=self._judged,
            window=_WINDOW,
            confirm=True,
            extra="gallery",
            backoff_s=backoff_s,
        )
        self._thread = threading.Thread(target=self._run, name="mqtt collector", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """True while batches can arrive."""
        return self.link.connected

    @property
    def trouble(self) -> str:
        """Reason why nothing arrives, or nothing is stored or acknowledged; empty if all is well."""
        if not self.connected:
            return self.backoff.reason or self.link.backoff.reason or f"{self.link.uri}: connecting"
        return self.backoff.reason or self.answers.reason

    def tell(self, event: PersonEvent) -> None:
        """Publish what became of a person; nobody learns of it here while there is no connection."""
        self._queue.put(event)

    def leave_if_stuck(self) -> None:
        """Leave the messages to other collectors of the group while a commit does not end."""
        running_s = self._collector.commits.running_s
        if running_s > _STUCK_S and self.connected:
            self.link.leave(self.backoff.failed("the store does not answer"))

    def close(self) -> None:
        """Store and acknowledge what has arrived, then disconnect."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        self.link.close()

    def _take(self, message: Message) -> None:
        """Hold a message until it is stored, unless it is more than memory should hold."""
        size, camera = len(message.payload), _camera(message)
        with self._holding:
            fits = self._held[camera] + size <= _MOST_OF_A_CAMERA and self._held.total() + size <= _MOST_HELD
            if keep := fits and size <= _MOST_BATCH_BYTES:
                self._held[camera] += size
            else:
                self.stats.dropped += 1
        if keep:
            self._queue.put(message)
            return
        self._log.warning(f"dropped/{camera}", "a batch of %d bytes of %s is dropped: too much is here", size, camera)
        self.link.confirm(message)

    def _let_go(self, messages: Iterable[Message]) -> None:
        with self._holding:
            for message in messages:
                self._held[_camera(message)] -= len(message.payload)
            self._held = +self._held  # without zeros

    def _run(self) -> None:
        while True:
            messages, last = self._next_group()
            if messages:
                self._store(messages)
                self._let_go(messages)
            if last:
                return

    def _next_group(self) -> tuple[list[Message], bool]:
        """Take all that has arrived, up to a limit of bytes; also return True if it is the last."""
        messages: list[Message] = []
        size = 0
        try:
            message = self._queue.get()
            while message is not None:
                if isinstance(message, PersonEvent):
                    self._publish_event(message)
                else:
                    messages.append(message)
                    size += len(message.payload)
                if size >= _MOST_BYTES:
                    return messages, False
                message = self._queue.get_nowait()
        except queue.Empty:
            return messages, False
        return messages, True

    def _store(self, messages: list[Message]) -> None:
        self.stats.messages += len(messages)
        self.stats.commits += 1
        senders = [_camera(message) for message in messages]
        payloads = [message.payload for message in messages]
        try:
            acks = self._collector.receive(payloads, senders=senders, shared_as=self._group)
        except StoreError as error:
            self._disconnect_for_a_while(f"cannot store: {error}")
            return
        except Exception as error:  # the thread's last resort: a collector that hangs would keep the group's share
            LOG.exception("cannot store a group of %s: unexpected error", counted(len(messages), "batch", "batches"))
            self._disconnect_for_a_while(f"{type(error).__name__}: {error}")
            return
        self.backoff.succeeded()
        unanswered = self.stats.unanswered
        for message, sender, ack in zip(messages, senders, acks, strict=True):
            if ack:
                self._answer(sender, ack)
            self.link.confirm(message)
        if self.stats.unanswered > unanswered:
            LOG.warning(
                "%d acknowledgements not sent: the broker is unreachable. The cameras will send those batches again",
                self.stats.unanswered - unanswered,
            )

    def _publish_event(self, event: PersonEvent) -> None:
        """Publish an event; who was not connected reads the table of events."""
        with contextlib.suppress(TransportError):
            wait_s = _ACK_TIMEOUT_S if self.link.connected else 0.0
            self.link.publish(people_topic(self._group, event), event_payload(self._group, event), timeout_s=wait_s)

    def _answer(self, camera: str, ack: bytes) -> None:
        try:
            # Without a connection waiting is of no use: the camera will send again.
            self.link.publish(
                acknowledgements_topic(camera), ack, timeout_s=_ACK_TIMEOUT_S if self.link.connected else 0.0
            )
            self.stats.acknowledged += 1
        except TransportError:
            self.stats.unanswered += 1

    def _disconnect_for_a_while(self, reason: str) -> None:
        """Disconnect for a while; drop what the broker has handed over, since the cameras send it again."""
        self.stats.failures += 1
        self.link.leave(self.backoff.failed(reason))
        with contextlib.suppress(queue.Empty):
            while (message := self._queue.get_nowait()) is not None:
                if isinstance(message, Message):
                    self._let_go([message])
            self._queue.put(None)

    def _judged(self, code: int) -> None:
        """Note the broker's verdict on an acknowledgement; a camera that has disconnected is no fault of this end."""
        if code == NOT_AUTHORISED:
            reason = f"{self.link.uri}: the broker does not let this collector acknowledge; see deploy/mosquitto/acl"
            self.answers.failed(reason, permanent=True)
        else:
            self.answers.succeeded()


def _camera(message: Message) -> str:
    """Return the camera that a message's topic names; the broker lets nobody publish to another's."""
    return message.topic.split("/")[2]
