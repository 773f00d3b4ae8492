"""Processes that do not outlive an interrupt: workers that are asked and stopped, and modules run as programs."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from reid_edge.benchmark.protocol import Failed, Reply
from reid_edge.errors import EngineError

#: Does what ``python -m`` does, without the current folder on the path: a msgspec.py that lies there must not be run.
#: Python 3.11 has ``-P`` for it, 3.10 has not.
_RUN_MODULE = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; del sys.argv[0]; "
    "import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)

Wanted = TypeVar("Wanted")

#: Longer than any engine takes to compile a network; a worker that does not answer for so long is stuck.
PATIENCE_SECONDS = 600.0
#: How much of a dead worker's stderr an error shows, from its end.
_SHOWN_CHARACTERS = 1500


def module_command(name: str, *arguments: object) -> list[str]:
    """Return a command that runs an installed module as ``python -m`` does, but never code from the current folder.

    Args:
        name: Dotted name of the module.
        arguments: For its ``sys.argv``.
    """
    return [sys.executable, "-c", _RUN_MODULE, name, *map(str, arguments)]


_MODEL_WORKER = module_command("reid_edge.benchmark.worker")


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back while the block runs; they take effect when it ends.

    Their handlers raise exceptions between any two instructions, also after a process has started and before its
    caller holds the object that can end it.  So start processes in here, and register their end in here.  Outside the
    main thread there is nothing to hold back, since Python runs handlers in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    with contextlib.ExitStack() as undo:  # each step is undone even if another one is interrupted
        undo.callback(_raise_first, heard)
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                undo.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _frame: heard.append(number))
        yield


def _raise_first(numbers: Sequence[int]) -> None:
    if numbers:
        signal.raise_signal(numbers[0])


def run_module(
    name: str, *arguments: object, environment: Mapping[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an installed module as a program until it ends; an interrupt ends it at any moment.

    Args:
        name: Dotted name of the module.
        arguments: For its ``sys.argv``.
        environment: Variables added to this process's.
        timeout: Seconds after which it is ended; None: it may take as long as it needs.

    Returns:
        Exit code, and what it wrote to stdout and stderr.

    Raises:
        subprocess.TimeoutExpired: It took longer than ``timeout``.
    """
    command = module_command(name, *arguments)
    with contextlib.ExitStack() as running:
        with interrupts_deferred():
            process = running.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **(environment or {})},
                )
            )
            running.callback(_end, process)  # before Popen's own end, which does not wait after a Ctrl-C
        stdout, stderr = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[Any]) -> None:
    with interrupts_deferred():
        process.kill()  # does nothing once it has ended
        process.wait()


class WorkerProcess:
    """A process that answers requests, and is stopped (SIGSTOP) between them: its thread pools would spin.

    It starts at once: make it within :func:`interrupts_deferred`, and register :meth:`close` there.

    Args:
        environment: Variables added to this process's.
        command: The program; this process's id is added as its last argument.
        replies: Union of the types of its replies; :class:`~reid_edge.benchmark.protocol.Failed` may be among them.
        patience: Seconds to wait for a reply, besides those that the request itself takes.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        command: Sequence[str] = _MODEL_WORKER,
        replies: Any = Reply,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._replies, self._patience = replies, patience
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._buffer = b""
        self._process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is this process's to handle
        )

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def ask(self, request: object, wanted: type[Wanted], *, seconds: float = 0.0) -> Wanted:
        """Wake the worker, send a request, wait for the reply, and stop the worker again.

        Args:
            request: Sent as one line of JSON.
            wanted: Type of the reply.
            seconds: Time that the request itself takes.

        Raises:
            EngineError: The worker could not do it, died, or is stuck; with the reason.
        """
        self._signal(signal.SIGCONT)
        try:
            line = self._line_after(msgspec.json.encode(request) + b"\n", time.monotonic() + self._patience + seconds)
        finally:
            self._signal(signal.SIGSTOP)
        reply = msgspec.json.decode(line, type=self._replies)
        if isinstance(reply, Failed):
            raise EngineError(reply.reason)
        assert isinstance(reply, wanted)
        return reply

    def close(self) -> None:
        """End the process, whatever its state."""
        with interrupts_deferred():  # a second Ctrl-C is not to leave it half ended
            _end(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._stderr.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _line_after(self, request: bytes, deadline: float) -> bytes:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(self._end_reason()) from None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise EngineError(f"no answer for {self._patience:g} s: the engine is stuck.")
                block = os.read(self._process.stdout.fileno(), 1 << 20)
                if not block:
                    raise EngineError(self._end_reason())
                self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _end_reason(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        shown = self._stderr.read().decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
        return f"the process ended with {how}" + (f":\n{shown}" if shown else ".")
