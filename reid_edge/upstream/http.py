"""Batches to a gallery by HTTP POST: the answer 200 means committed, and its body is the acknowledgement."""

from __future__ import annotations

import contextlib
import logging
import threading
from types import ModuleType
from typing import TYPE_CHECKING

from reid_edge.backoff import TRANSIENT_S, Backoff
from reid_edge.errors import MissingExtraError, SettingsError, TransportError
from reid_edge.upstream.tls import TlsFiles, client_context, endpoint
from reid_edge.upstream.transport import AckQueue

if TYPE_CHECKING:
    from httpx import Client, Response

LOG = logging.getLogger(__name__)

BATCHES_PATH = "/v1/batches"
CONTENT_TYPE = "application/x-protobuf"
#: Status codes of failures that pass by themselves; any other but 200 needs a person.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONNECT_S = 5.0
_ANSWER_S = 30.0
_KEEPALIVE_S = 60.0


class HttpTransport:
    """Posts one batch after another to ``/v1/batches``, over one connection that is kept open.

    Args:
        uri: ``https://HOST[:8443]``, or ``http://HOST[:8080]`` on loopback with ``insecure``.
        tls: Certificates; the common name of the camera's certificate is the camera's name.
        insecure: Allow plain text on loopback.
        backoff_s: Seconds of the first and the longest pause after a failure that may pass by itself.

    Attributes:
        backoff: Counts failures, with the last reason.

    Raises:
        SettingsError: The address or the certificates cannot be used.
        MissingExtraError: httpx is not installed.
    """

    losses = 0  # every batch is answered, or has failed

    def __init__(
        self,
        uri: str,
        *,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        backoff_s: tuple[float, float] = TRANSIENT_S,
    ) -> None:
        self.name = uri
        self.backoff = Backoff(LOG, transient_s=backoff_s)
        self._endpoint = endpoint(uri, {"https": 8443, "http": 8080}, tls, insecure=insecure)
        self._tls = tls if self._endpoint.secure else None
        self._acks = AckQueue()
        self._closed = threading.Event()
        self._sending = threading.Lock()
        self._httpx = _import_httpx()
        self._client: Client | None = self._new_client()

    @property
    def connected(self) -> bool:
        """True if the last attempt succeeded."""
        return not self.backoff.reason

    def send(self, batch: bytes) -> None:
        """Post one batch and wait for the answer.

        Raises:
            TransportError: The gallery was not reached or did not accept, or the pause after that is not over.
        """
        self.backoff.check()
        with self._sending:
            try:
                self._judge(self._post(batch), len(batch))
            finally:
                if self._closed.is_set():
                    self._drop_client()

    def acks(self, timeout_s: float) -> list[bytes]:
        """Return acknowledgements that have come, after waiting up to ``timeout_s`` for the first."""
        return self._acks.take(timeout_s)

    def close(self) -> None:
        """Close the connection, or let a batch that is being sent close it after its answer."""
        self._closed.set()
        self._acks.wake()
        if self._sending.acquire(blocking=False):
            self._drop_client()
            self._sending.release()

    def _post(self, batch: bytes) -> Response:
        if self._closed.is_set():
            raise TransportError(f"{self.name}: the transport is closed.")
        try:
            self._client = self._client or self._new_client()
            return self._client.post(BATCHES_PATH, content=batch)
        except SettingsError as error:  # renewed certificates that do not fit
            self.backoff.failed(f"{self.name}: {error}", permanent=True)
            raise TransportError(f"{self.name}: {error}") from error
        except self._httpx.HTTPError as error:
            self._drop_client()  # so that the next connection reads the certificates anew
            # OpenSSL's words for a certificate that this end, or the other, does not accept.
            permanent = "CERTIFICATE_VERIFY_FAILED" in str(error) or "ALERT" in str(error).upper()
            self.backoff.failed(f"{self.name}: {error or type(error).__name__}", permanent=permanent)
            raise TransportError(f"{self.backoff.reason}.") from error

    def _judge(self, response: Response, size: int) -> None:
        if response.status_code == 200:
            self.backoff.succeeded()
            self._acks.put(response.content)
            return
        permanent = response.status_code not in _TRANSIENT
        words = response.text[:200].strip().rstrip(".")
        reason = f"{self.name} answered {response.status_code} to a batch of {size} bytes: {words}"
        self.backoff.failed(reason, permanent=permanent, at_least_s=_retry_after_s(response))
        raise TransportError(f"{reason}.")

    def _new_client(self) -> Client:
        client: Client = self._httpx.Client(
            base_url=f"http{'s' if self._tls else ''}://{_bracketed(self._endpoint.host)}:{self._endpoint.port}",
            verify=client_context(self._tls) if self._tls else False,
            trust_env=False,
            headers={"content-type": CONTENT_TYPE},
            timeout=self._httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            limits=self._httpx.Limits(max_connections=1, keepalive_expiry=_KEEPALIVE_S),
        )
        return client

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _import_httpx() -> ModuleType:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("httpx", "camera", "HTTP") from error
    return httpx


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _retry_after_s(response: Response) -> float:
    with contextlib.suppress(ValueError):
        return max(0.0, min(3600.0, float(response.headers.get("retry-after", 0))))
    return 0.0
