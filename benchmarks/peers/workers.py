"""The scheduler's end of a worker."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from contenders import Contender

from reid_edge.benchmark.process import WorkerProcess
from reid_edge.errors import EngineError

#: Longer than torch takes to compile a network; one that says nothing for so long is stuck.
PATIENCE_SECONDS = 180.0
_COMMAND = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("worker.py"))]


class ContenderError(Exception):
    """A contender could not be run; with the reason."""


class ContenderProcess:
    """A process that holds one contender."""

    def __init__(self, contender: Contender, environment: dict[str, str]) -> None:
        self.contender = contender
        self._process = WorkerProcess(environment, command=_COMMAND, replies=dict[str, Any], patience=PATIENCE_SECONDS)

    def load(self, threads: int, photographs: Path | None) -> dict[str, Any]:
        return self.ask(
            "load",
            contender=dataclasses.asdict(self.contender),
            threads=threads,
            photographs=str(photographs) if photographs else None,
        )

    def ask(self, what: str, **arguments: object) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            ContenderError: It ended, or does not answer.
        """
        try:
            return self._process.ask({"do": what, **arguments}, dict)
        except EngineError as error:
            raise ContenderError(str(error).splitlines()[-1].strip()) from None  # of a traceback, what it says

    def close(self) -> None:
        """End the process, whatever its state."""
        self._process.close()
