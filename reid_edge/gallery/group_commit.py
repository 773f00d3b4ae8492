"""Commits for the HTTP server: batches that arrive during one commit are stored together by the next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from reid_edge.errors import StoreError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.uploads import Upload
from reid_edge.wording import counted

log = logging.getLogger(__name__)

#: Longest wait of a request for its commit: camera's ends wait 30 s for an answer.
ANSWER_S = 25.0
#: Most bytes of one commit.
_MOST_GROUP_BYTES = 8 * 2**20

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Waiting:
    payload: bytes
    sender: str | None
    upload: Upload
    ack: asyncio.Future[bytes]


class GroupCommit:
    """Stores batches, in threads that nobody has to wait for: a store may hang.

    Args:
        collector: Stores them.
        answer_s: Longest wait of one batch.
    """

    def __init__(self, collector: Collector, *, answer_s: float = ANSWER_S) -> None:
        self._collector = collector
        self._answer_s = answer_s
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def store(self, payload: bytes, sender: str | None, upload: Upload) -> bytes:
        """Store a batch with the others that are waiting; return its acknowledgement after the commit.

        Its upload is released once it is out of memory, which may be later than this ends.

        Raises:
            StoreError: It was not stored, or not in time.
        """
        waiting = _Waiting(payload, sender, upload, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await asyncio.wait_for(waiting.ack, self._answer_s)
        except asyncio.TimeoutError:
            raise StoreError(f"the store has not answered within {self._answer_s:g} s.") from None

    async def _run(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                await self._commit(group)
            finally:
                for each in group:
                    each.upload.release()
        self._task = None

    def _next_group(self) -> list[_Waiting]:
        """Take all that is waiting, up to a limit of bytes."""
        count = size = 0
        while count < len(self._waiting) and size < _MOST_GROUP_BYTES:
            size += len(self._waiting[count].payload)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        payloads, senders = [each.payload for each in group], [each.sender for each in group]
        try:
            acks = await in_daemon(lambda: self._collector.receive(payloads, senders=senders))
        except Exception as error:  # every request must be answered
            if not isinstance(error, StoreError):
                log.exception("cannot store a group of %s: unexpected error", counted(len(group), "batch", "batches"))
            for each in group:
                if not each.ack.done():
                    each.ack.set_exception(error)
            return
        for each, ack in zip(group, acks, strict=True):
            if not each.ack.done():
                each.ack.set_result(ack)


async def in_daemon(call: Callable[[], Result]) -> Result:
    """Return what a call returns that runs in a thread which does not keep the process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: Exception | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

    def work() -> None:
        try:
            outcome: tuple[Result | None, Exception | None] = (call(), None)
        except Exception as error:  # handed on
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name="commit", daemon=True).start()
    return await future
