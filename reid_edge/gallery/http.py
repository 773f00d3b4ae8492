"""The gallery by HTTP: ``POST /v1/batches`` for cameras, ``GET /healthz`` and ``/metrics`` for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from reid_edge.errors import MissingExtraError, StoreError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.group_commit import GroupCommit
from reid_edge.gallery.http_server import CLIENT_NAME, HttpServer
from reid_edge.gallery.uploads import Upload, Uploads
from reid_edge.redaction import scrubbed
from reid_edge.upstream.encryption import is_loopback
from reid_edge.upstream.http import BATCHES_PATH, CONTENT_TYPE

try:
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise MissingExtraError(error.name or "starlette", "gallery", "the HTTP server") from error

__all__ = ["HttpServer", "gallery_app", "operations_app"]

#: As large as the broker takes (deploy/mosquitto/mosquitto.conf).
MOST_BATCH_BYTES = 4 * 2**20
#: Time for the whole of a batch to arrive.
UPLOAD_S = 30.0
_RETRY_AFTER_S = 5
_TOO_MANY = "Too many batches are arriving or waiting to be stored."


def gallery_app(
    collector: Collector,
    *,
    metrics: Callable[[], tuple[bytes, str]],
    healthy: Callable[[], str] = lambda: "",
    max_batch_bytes: int = MOST_BATCH_BYTES,
    uploads: Uploads | None = None,
) -> Starlette:
    """Make the application that a camera posts batches to.

    ``POST /v1/batches`` answers 200 with the acknowledgement once the batch is committed; 400 if the body is not a
    batch, 413 if it is too large, 408 if it arrives too slowly, 503 with ``Retry-After`` while the store fails or too
    many batches are here.  What a browser may have sent for another site is answered 403.  The content type of a batch
    is not looked at: a body that is none is answered 400.

    Args:
        collector: Where batches go.
        metrics: Returns the body and content type of ``/metrics``; must not block.
        healthy: Returns the reason why the gallery does not work, or an empty text; must not block.
        max_batch_bytes: The largest batch.
        uploads: Room for all of them.
    """
    commits, room = GroupCommit(collector), uploads or Uploads()

    async def batches(request: Request) -> Response:
        if (refusal := _refused_head(request, max_batch_bytes)) is not None:
            return refusal
        sender = getattr(request.state, CLIENT_NAME, None)
        transfer = _Transfer(request, room, max_batch_bytes, sender)
        payload = await transfer.body()
        if isinstance(payload, Response):
            return payload
        return await _answer(commits, payload, sender, transfer.upload)

    routes = [Route(BATCHES_PATH, batches, methods=["POST"]), *_operations(metrics, healthy)]
    return Starlette(routes=routes, middleware=[Middleware(_NoBrowsers)])


def operations_app(*, metrics: Callable[[], tuple[bytes, str]], healthy: Callable[[], str] = lambda: "") -> Starlette:
    """Make an application of ``/healthz`` and ``/metrics`` alone, for a port of loopback."""
    return Starlette(routes=_operations(metrics, healthy), middleware=[Middleware(_NoBrowsers)])


def _operations(metrics: Callable[[], tuple[bytes, str]], healthy: Callable[[], str]) -> list[Route]:
    # Coroutines: threads for requests could all be taken.
    async def health(_request: Request) -> Response:
        reason = healthy()
        return PlainTextResponse(f"{scrubbed(reason) or 'ok'}\n", 503 if reason else 200)

    async def figures(_request: Request) -> Response:
        body, content_type = metrics()
        return Response(body, headers={"content-type": content_type})

    return [Route("/healthz", health), Route("/metrics", figures)]


class _NoBrowsers:
    """Refuses requests that a page of another site may have caused in a browser on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        app = self._app
        if reason := _browser_fault(headers, plain=scope.get("scheme") == "http"):
            app = PlainTextResponse(f"{reason}\n", 403)
        await app(scope, receive, send)


def _browser_fault(headers: Headers, *, plain: bool) -> str:
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "Requests from pages of other sites are not answered."
    if plain and not _names_loopback(headers.get("host", "localhost")):
        # A name that leads here by somebody else's DNS.  With TLS the certificate has been checked against the name.
        return "In plain text, the host must be localhost or an address of loopback."
    return ""


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _refused_head(request: Request, most: int) -> Response | None:
    """Return the answer to a request whose head says that it is not to be read on."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length[:12]) > most:
        return _too_large(most)
    return None


async def _answer(commits: GroupCommit, payload: bytes, sender: str | None, upload: Upload) -> Response:
    try:
        ack = await commits.store(payload, sender, upload)
    except StoreError as error:
        return _unavailable(f"{error}")
    if not ack:
        return PlainTextResponse("The body is not a batch that this release reads (docs/wire.md).\n", 400)
    return Response(ack, media_type=CONTENT_TYPE)


class _Transfer:
    """The transfer of one request's body, which ends when it is whole, too large, too slow, or its room is needed.

    Attributes:
        upload: Its bytes; to be released by whoever gets the body.
    """

    def __init__(self, request: Request, room: Uploads, most: int, sender: str | None) -> None:
        self._request, self._most = request, most
        self._parts: list[bytes] = []
        self._task = asyncio.create_task(self._read())
        self.upload = room.begin(self._task.cancel, sender)

    async def body(self) -> bytes | Response:
        """Return the body, or the answer if there is none; its bytes are released then."""
        done, _ = await asyncio.wait({self._task}, timeout=UPLOAD_S)
        outcome: bytes | Response
        if not done:
            self._task.cancel()
            outcome = PlainTextResponse(f"The batch did not arrive within {UPLOAD_S:g} s.\n", 408)
        elif self._task.cancelled():
            outcome = _unavailable(_TOO_MANY)
        else:
            outcome = self._task.result()
        self._parts.clear()  # by hand: references in a circle would keep them until the next garbage collection
        if isinstance(outcome, Response):
            self.upload.release()
        return outcome

    async def _read(self) -> bytes | Response:
        try:
            async for part in self._request.stream():
                if not self.upload.grow(len(part)):
                    return _unavailable(_TOO_MANY)
                if self.upload.size > self._most:
                    return _too_large(self._most)
                self._parts.append(part)
        except ClientDisconnect:
            return Response(status_code=400)
        self.upload.finished()
        return b"".join(self._parts)


def _too_large(most: int) -> Response:
    return PlainTextResponse(f"A batch has at most {most} bytes: send fewer rows.\n", 413)


def _unavailable(reason: str) -> Response:
    return PlainTextResponse(f"{scrubbed(reason)}\n", 503, {"retry-after": str(_RETRY_AFTER_S)})
