"""The conductor's end of a worker."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contenders import Contender

#: Longer than torch takes to compile a network; one that says nothing for so long is stuck.
PATIENCE_SECONDS = 180.0
_WORKER = Path(__file__).with_name("worker.py")


class ContenderError(Exception):
    """It could not be run, and why."""


class WorkerProcess:
    """A process that holds one contender; it is stopped (SIGSTOP) whenever it is not asked, since its threads spin."""

    def __init__(self, contender: Contender, environment: dict[str, str]) -> None:
        self.contender = contender
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(_WORKER), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def load(self, threads: int, photographs: Path | None) -> dict[str, Any]:
        return self.ask(
            "load",
            contender=dataclasses.asdict(self.contender),
            threads=threads,
            photographs=str(photographs) if photographs else None,
        )

    def ask(self, what: str, **arguments: object) -> dict[str, Any]:
        """Wake the worker, ask, stop it again.

        Raises:
            ContenderError: It ended, or does not answer.
        """
        assert self._process.stdin and self._process.stdout
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._line())  # type: ignore[no-any-return]
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._said.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _line(self) -> bytes:
        """One answer; a worker sends nothing that was not asked, so that nothing is left behind it."""
        assert self._process.stdout
        descriptor, line = self._process.stdout.fileno(), b""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ContenderError(f"no answer for {PATIENCE_SECONDS:g} s")
            block = os.read(descriptor, 1 << 20)
            if not block:
                raise ContenderError(self._last_words())
            line += block
        return line

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"ended with exit code {code}, saying nothing"
