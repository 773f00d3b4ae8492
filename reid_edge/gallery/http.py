"""The gallery by HTTP: ``POST /v1/batches`` for cameras, ``GET /healthz`` and ``/metrics`` for those who watch it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from reid_edge.errors import MissingExtraError, StoreError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.http_server import CLIENT_NAME
from reid_edge.upstream.http import BATCHES_PATH, CONTENT_TYPE

try:
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtraError("starlette", "gallery", "the HTTP server") from error

LOG = logging.getLogger(__name__)

#: As large as the broker takes (deploy/mosquitto/mosquitto.conf).
MOST_BATCH_BYTES = 4 * 2**20
_MOST_GROUP_BYTES = 16 * 2**20
_MOST_WAITING_BYTES = 128 * 2**20
_UPLOAD_S = 30.0
_RETRY_AFTER_S = 5


def gallery_app(
    collector: Collector,
    *,
    metrics: Callable[[], tuple[bytes, str]],
    healthy: Callable[[], str] = lambda: "",
    max_batch_bytes: int = MOST_BATCH_BYTES,
) -> Starlette:
    """The application that a camera posts batches to.

    ``POST /v1/batches`` answers 200 with the acknowledgement once the batch is committed; 400 to what is no batch, 413
    to one that is too large, 408 to one that comes too slowly, 503 with ``Retry-After`` while the store fails or too
    much is waiting.

    Args:
        collector: Where batches go.
        metrics: Returns the body and content type of ``/metrics``.
        healthy: Returns why the gallery does not work; empty if it does.
        max_batch_bytes: The largest batch.
    """
    commits = _GroupCommit(collector)

    async def batches(request: Request) -> Response:
        try:
            payload = await asyncio.wait_for(_body(request, max_batch_bytes), _UPLOAD_S)
        except asyncio.TimeoutError:
            return PlainTextResponse(f"The batch did not arrive within {_UPLOAD_S:g} s.\n", 408)
        except ClientDisconnect:
            return Response(status_code=400)
        if payload is None:
            return PlainTextResponse(f"A batch has at most {max_batch_bytes} bytes: send fewer rows.\n", 413)
        return await _answer(commits, payload, getattr(request.state, CLIENT_NAME, None))

    return Starlette(routes=[Route(BATCHES_PATH, batches, methods=["POST"]), *_operations(metrics, healthy)])


def operations_app(*, metrics: Callable[[], tuple[bytes, str]], healthy: Callable[[], str] = lambda: "") -> Starlette:
    """``/healthz`` and ``/metrics`` alone, for a port of loopback."""
    return Starlette(routes=_operations(metrics, healthy))


def _operations(metrics: Callable[[], tuple[bytes, str]], healthy: Callable[[], str]) -> list[Route]:
    def health(_request: Request) -> Response:
        reason = healthy()
        return PlainTextResponse(f"{reason or 'ok'}\n", 503 if reason else 200)

    def figures(_request: Request) -> Response:
        body, content_type = metrics()
        return Response(body, headers={"content-type": content_type})

    return [Route("/healthz", health), Route("/metrics", figures)]


async def _answer(commits: _GroupCommit, payload: bytes, sender: str | None) -> Response:
    try:
        ack = await commits.store(payload, sender)
    except (StoreError, _BusyError) as error:
        return PlainTextResponse(f"{error}\n", 503, {"retry-after": str(_RETRY_AFTER_S)})
    if not ack:
        return PlainTextResponse("This is no batch that this release reads (docs/wire.md).\n", 400)
    return Response(ack, media_type=CONTENT_TYPE)


async def _body(request: Request, most: int) -> bytes | None:
    """The request's body; None if it is larger than ``most``."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


class _BusyError(Exception):
    """More is waiting than memory should hold."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    payload: bytes
    sender: str | None
    ack: asyncio.Future[bytes]


class _GroupCommit:
    """While one commit runs, in a thread, what comes in waits; then all of it is the next."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    async def store(self, payload: bytes, sender: str | None) -> bytes:
        """Returns the acknowledgement, after the commit."""
        if self._bytes + len(payload) > _MOST_WAITING_BYTES:
            raise _BusyError("Too many batches are waiting to be stored.")
        waiting = _Waiting(payload, sender, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bytes += len(payload)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await waiting.ack

    async def _run(self) -> None:
        while self._waiting:
            group = self._next_group()
            self._bytes -= sum(len(each.payload) for each in group)
            await self._commit(group)
        self._task = None

    def _next_group(self) -> list[_Waiting]:
        """All that waits, up to a bound."""
        count = size = 0
        while count < len(self._waiting) and size < _MOST_GROUP_BYTES:
            size += len(self._waiting[count].payload)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        payloads, senders = [each.payload for each in group], [each.sender for each in group]
        try:
            acks = await asyncio.to_thread(self._collector.receive, payloads, senders=senders)
        except Exception as error:  # every request must be answered, whatever happened
            if not isinstance(error, StoreError):
                LOG.exception("a group of %d batches failed in an unforeseen way", len(group))
            for each in group:
                if not each.ack.done():
                    each.ack.set_exception(error)
            return
        for each, ack in zip(group, acks, strict=True):
            if not each.ack.done():
                each.ack.set_result(ack)
