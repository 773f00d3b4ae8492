"""Batches to a gallery through an MQTT 5 broker; acknowledged by the gallery, not by the broker.

The camera's session at the broker ends with its connection.  A broker that kept acknowledgements for later would only
add a second state to keep right: those that were missed come again when the outbox sends its rows again.
"""

from __future__ import annotations

import logging

from reid_edge.backoff import TRANSIENT_S, Backoff
from reid_edge.errors import SettingsError
from reid_edge.upstream.batch_limit import MOST_BATCH_BYTES, BatchLimit
from reid_edge.upstream.mqtt.link import Message, MqttLink
from reid_edge.upstream.tls import TlsFiles
from reid_edge.upstream.transport import AckQueue
from reid_edge.wire_names import checked_wire_name

LOG = logging.getLogger(__name__)

#: The broker's reason codes for a publication (MQTT 5, section 3.4.2.1).
NO_COLLECTOR, NOT_AUTHORISED = 0x10, 0x87
_PERMANENT = frozenset({NOT_AUTHORISED, 0x90, 0x99})
_SEND_TIMEOUT_S = 1.0
#: As the answer to the largest batch by HTTP.
_MOST_ACK_BYTES = 512 * 1024


def observations_topic(camera: str) -> str:
    """Return the topic of a camera's batches; ``+`` stands for every camera."""
    return f"reid/v1/{camera}/obs"


def acknowledgements_topic(camera: str) -> str:
    """Return the topic of the gallery's acknowledgements for a camera."""
    return f"reid/v1/{camera}/ack"


class MqttTransport:
    """Sends batches to ``reid/v1/<camera>/obs`` and receives acknowledgements on ``reid/v1/<camera>/ack``.

    It connects and reconnects by itself.  After the broker has answered that no collector is there (0x10), or that this
    camera may not publish (0x87), nothing is sent for a while.

    Args:
        uri: ``mqtts://HOST[:8883]``, or ``mqtt://HOST[:1883]`` on loopback with ``insecure``.
        camera: The camera's name on the wire, which is also the common name of its certificate.
        tls: Certificates.
        insecure: Allow plain text on loopback.
        max_batch_bytes: Largest batch; smaller ones are asked for if the broker announces less, or does not take it.
        window: Most batches that wait for the broker's confirmation; fewer if the broker allows fewer.
        backoff_s: Seconds of the first and the longest pause after a lost connection or a refusal.

    Attributes:
        backoff: Counts the broker's refusals, with the last reason.
        link: The connection to the broker.

    Raises:
        SettingsError: The name, the address or the certificates cannot be used.
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        uri: str,
        *,
        camera: str,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        max_batch_bytes: int = MOST_BATCH_BYTES,
        window: int = 64,
        backoff_s: tuple[float, float] = TRANSIENT_S,
    ) -> None:
        self.backoff = Backoff(LOG, transient_s=backoff_s)
        self._topic = observations_topic(checked_wire_name(camera, "camera", SettingsError))
        self._acks = AckQueue()
        self._recoveries = 0
        self._limit = BatchLimit(max_batch_bytes)
        self.link = MqttLink(
            uri,
            client_id=camera,
            subscription=acknowledgements_topic(camera),
            tls=tls,
            insecure=insecure,
            on_message=self._on_message,
            on_verdict=self._on_verdict,
            window=window,
            on_too_large=self._on_too_large,
            confirm=False,
            most_incoming=_MOST_ACK_BYTES,
            namesake=(
                "two cameras have one name. Give one of them another (camera.name or --camera), and its own certificate"
            ),
            extra="camera",
            backoff_s=backoff_s,
        )

    @property
    def name(self) -> str:
        """Address of the broker."""
        return self.link.uri

    @property
    def connected(self) -> bool:
        """True if the broker is connected and takes batches."""
        return self.link.connected and not self.backoff.reason

    @property
    def losses(self) -> int:
        """Number of times that sent batches may have been lost: with a connection, or by a broker that refused them."""
        return max(0, self.link.connects - 1) + self._recoveries

    @property
    def max_batch_bytes(self) -> int:
        """Largest batch that the broker takes."""
        return min(self._limit.bytes, self.link.largest_payload(self._topic))

    @property
    def conflict(self) -> str:
        """Trouble that lasts though batches may go through: another camera with this one's name."""
        return self.link.conflict

    def send(self, batch: bytes) -> None:
        """Queue one batch; waits up to a second for the connection and for earlier batches.

        Raises:
            BatchTooLargeError: The broker takes only smaller batches.
            TransportError: Not connected, the broker is too slow, or the pause after a refusal is not over.
        """
        self.backoff.check()
        self.link.publish(self._topic, batch, timeout_s=_SEND_TIMEOUT_S)

    def acks(self, timeout_s: float) -> list[bytes]:
        """Return acknowledgements that have come, after waiting up to ``timeout_s`` for the first."""
        return self._acks.take(timeout_s)

    def close(self) -> None:
        """Send queued batches and disconnect; ends a waiting ``acks``."""
        self.link.close()
        self._acks.wake()

    def _on_message(self, message: Message) -> None:
        self._acks.put(message.payload)

    def _on_verdict(self, code: int) -> None:
        if code == 0:
            self._recoveries += bool(self.backoff.reason)
            self.backoff.succeeded()
        else:
            self.backoff.failed(self._explanation(code), permanent=code in _PERMANENT)

    def _on_too_large(self, size: int) -> None:
        if self._limit.refused(size):
            LOG.warning(
                "%s: the broker does not seem to take a batch of %d bytes; batches have at most %d now",
                self.link.uri,
                size,
                self._limit.bytes,
            )
            self._recoveries += 1
        else:
            self.backoff.failed(f"{self.link.uri}: the broker does not take a batch of {size} bytes", permanent=True)

    def _explanation(self, code: int) -> str:
        if code == NO_COLLECTOR:
            return f"{self.link.uri}: the broker has no subscriber to {self._topic}: no collector is running"
        if code == NOT_AUTHORISED:
            return (
                f"{self.link.uri}: the broker does not let this camera publish to {self._topic}. The common name of "
                "its certificate must be the camera's name, and the access list that of deploy/mosquitto"
            )
        return f"{self.link.uri}: the broker refused a message with reason code 0x{code:02x}"
