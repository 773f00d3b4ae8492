"""Logging: one JSON object a line for a log collector, or plain lines for a person."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Literal

from reid_edge.errors import MissingExtraError
from reid_edge.redaction import scrubbed

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logs(log_format: Literal["auto", "json", "text"], level: str) -> None:
    """Send all logs to standard error, and quieten libraries that log every request.

    Args:
        log_format: ``json`` for a collector, ``text`` for a person, ``auto`` for text on a terminal and else JSON.
        level: Least severity that is logged, e.g. ``info``.

    Raises:
        MissingExtraError: JSON is needed and its package is not installed.
    """
    handler = logging.StreamHandler(sys.stderr)
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(logging.Formatter(TEXT) if as_text else _json_formatter())
    handler.addFilter(_scrub)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpcore", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def scrub_tracebacks() -> None:
    """Take secrets out of the tracebacks of errors that nobody catches, in any thread."""

    def show(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr.write(scrubbed("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show
    threading.excepthook = lambda failed: show(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _scrub(record: logging.LogRecord) -> bool:
    """Take secrets out of a record before it is formatted: of its message and of its traceback, causes included."""
    record.msg, record.args = scrubbed(record.getMessage()), None
    if record.exc_info:
        record.exc_text = scrubbed(logging.Formatter().formatException(record.exc_info))
        record.exc_info = None
    return True


def _json_formatter() -> logging.Formatter:
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ModuleNotFoundError as error:
        raise MissingExtraError("python-json-logger", "camera", "logging as JSON") from error
    fields = {"levelname": "level", "name": "logger"}
    return JsonFormatter("%(levelname)s %(name)s %(message)s", timestamp=True, rename_fields=fields)
