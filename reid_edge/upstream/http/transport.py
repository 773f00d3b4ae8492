"""Batches to a gallery by HTTP POST: the answer 200 means committed, and its body is the acknowledgement."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from typing import TYPE_CHECKING

from reid_edge.backoff import TRANSIENT_S, Backoff
from reid_edge.errors import BatchTooLargeError, SettingsError, TransportError
from reid_edge.foreign_text import one_line, one_line_of_bytes
from reid_edge.upstream.batch_limit import MOST_BATCH_BYTES, BatchLimit
from reid_edge.upstream.tls import TlsFiles, certificate_advice, client_context, endpoint
from reid_edge.upstream.transport import AckQueue

if TYPE_CHECKING:
    from reid_edge.upstream.http.connection import Answer, HttpConnection

LOG = logging.getLogger(__name__)

BATCHES_PATH = "/v1/batches"
CONTENT_TYPE = "application/x-protobuf"
_HEADERS = {"content-type": CONTENT_TYPE, "accept-encoding": "identity", "user-agent": "reid-edge"}
#: Status codes of failures that pass by themselves; any other but 200 needs a person.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_LARGE = 413
_CONNECT_S = 10.0
#: Seconds for a batch and its answer: a gallery answers within 30 s, and a slow line needs as long for a batch.
_REQUEST_S = 60.0
_KEEPALIVE_S = 60.0
#: An acknowledgement of the largest batch, 500 rows and 128 gaps, has 9 kB; with each row refused for a reason of its
#: own of 400 characters it has 220 kB.
_MOST_ANSWER_BYTES = 512 * 1024


class HttpTransport:
    """Posts one batch after another to ``/v1/batches``, over one connection that is kept open.

    Args:
        uri: ``https://HOST[:8443]``, or ``http://HOST[:8080]`` on loopback with ``insecure``.
        tls: Certificates; the common name of the camera's certificate is the camera's name.
        insecure: Allow plain text on loopback.
        max_batch_bytes: Largest batch; smaller ones are asked for once the gallery has answered that one is too large.
        backoff_s: Seconds of the first and the longest pause after a failure that may pass by itself.
        request_s: Seconds for a batch and its whole answer.

    Attributes:
        backoff: Counts failures, with the last reason.

    Raises:
        SettingsError: The address or the certificates cannot be used.
        MissingExtraError: httpcore is not installed.
    """

    conflict = ""
    losses = 0  # every batch is answered, or has failed

    def __init__(
        self,
        uri: str,
        *,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        max_batch_bytes: int = MOST_BATCH_BYTES,
        backoff_s: tuple[float, float] = TRANSIENT_S,
        request_s: float = _REQUEST_S,
    ) -> None:
        self.name = uri
        self.backoff = Backoff(LOG, transient_s=backoff_s)
        self._endpoint = endpoint(uri, {"https": 8443, "http": 8080}, tls, insecure=insecure)
        self._tls = tls if self._endpoint.secure else None
        self._acks = AckQueue()
        self._closed = threading.Event()
        self._sending = threading.Lock()
        self._limit = BatchLimit(max_batch_bytes)
        self._request_s = request_s
        self._connection: HttpConnection | None = self._new_connection()

    @property
    def connected(self) -> bool:
        """True if the last attempt succeeded."""
        return not self.backoff.reason

    @property
    def max_batch_bytes(self) -> int:
        """Largest batch that the gallery may take."""
        return self._limit.bytes

    def send(self, batch: bytes) -> None:
        """Post one batch and wait for the answer.

        Raises:
            BatchTooLargeError: The gallery takes only smaller batches.
            TransportError: The gallery was not reached or did not accept, or the pause after that is not over.
        """
        self.backoff.check()
        with self._sending:
            try:
                self._judge(self._post(batch), len(batch))
            finally:
                if self._closed.is_set():
                    self._drop_connection()

    def acks(self, timeout_s: float) -> list[bytes]:
        """Return acknowledgements that have come, after waiting up to ``timeout_s`` for the first."""
        return self._acks.take(timeout_s)

    def close(self) -> None:
        """Close the connection, or let a batch that is being sent close it after its answer."""
        self._closed.set()
        self._acks.wake()
        if self._sending.acquire(blocking=False):
            self._drop_connection()
            self._sending.release()

    def _post(self, batch: bytes) -> Answer:
        if self._closed.is_set():
            raise TransportError(f"{self.name}: the transport is closed.")
        try:
            self._connection = self._connection or self._new_connection()
            return self._connection.post(BATCHES_PATH, batch, _HEADERS, most_bytes=_MOST_ANSWER_BYTES)
        except SettingsError as error:  # renewed certificates that do not fit
            raise self._failed(str(error), permanent=True) from error
        except TransportError as error:
            self._drop_connection()  # so that the next one reads the certificates anew
            # OpenSSL's words for a certificate that this end, or the other, does not accept.
            permanent = "CERTIFICATE_VERIFY_FAILED" in str(error) or "ALERT" in str(error).upper()
            raise self._failed(
                one_line(str(error)) + certificate_advice(str(error), "gallery"), permanent=permanent
            ) from error

    def _judge(self, answer: Answer, size: int) -> None:
        packing = answer.headers.get("content-encoding", "identity").strip().lower()
        packed = packing not in ("", "identity")
        if answer.status == 200 and answer.complete and not packed:
            self.backoff.succeeded()
            self._acks.put(answer.body)
            return
        self._drop_connection()
        if answer.status == 200:
            fault = f"packed as {one_line(packing, 20)}" if packed else f"with more than {_MOST_ANSWER_BYTES} bytes"
            raise self._failed(f"the answer is {fault}, which no gallery sends: is it behind a proxy?", permanent=True)
        words = "" if packed else one_line_of_bytes(answer.body).rstrip(".")
        reason = f"answered {answer.status} to a batch of {size} bytes: {words}"
        if answer.status == _TOO_LARGE and self._limit.refused(size):
            LOG.warning("%s %s; batches have at most %d bytes now", self.name, reason, self._limit.bytes)
            raise BatchTooLargeError(f"{self.name} {reason}.")
        permanent = answer.status not in _TRANSIENT
        self.backoff.failed(f"{self.name} {reason}", permanent=permanent, at_least_s=_retry_after_s(answer))
        raise TransportError(f"{self.name} {reason}.")

    def _failed(self, reason: str, *, permanent: bool) -> TransportError:
        self.backoff.failed(f"{self.name}: {reason}", permanent=permanent)
        return TransportError(f"{self.backoff.reason}.")

    def _new_connection(self) -> HttpConnection:
        # Here, since a gallery, which imports this module for its names, needs no client.
        from reid_edge.upstream.http.connection import HttpConnection

        return HttpConnection(
            self._endpoint,
            client_context(self._tls) if self._tls else None,
            connect_s=min(_CONNECT_S, self._request_s),
            request_s=self._request_s,
            keepalive_s=_KEEPALIVE_S,
        )

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _retry_after_s(answer: Answer) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(answer.headers.get("retry-after", 0))
        return max(0.0, min(3600.0, seconds)) if math.isfinite(seconds) else 0.0
    return 0.0
