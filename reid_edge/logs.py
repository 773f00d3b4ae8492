"""Logging: one JSON object a line for a log collector, or plain lines for a person."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from reid_edge.errors import MissingExtraError

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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _json_formatter() -> logging.Formatter:
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ModuleNotFoundError as error:
        raise MissingExtraError("python-json-logger", "camera", "logging as JSON") from error
    fields = {"levelname": "level", "name": "logger"}
    return JsonFormatter("%(levelname)s %(name)s %(message)s", timestamp=True, rename_fields=fields)
