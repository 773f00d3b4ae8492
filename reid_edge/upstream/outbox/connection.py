"""Connections to an outbox's file on which every damage is an error of SQLite's."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reid_edge.foreign_text import lenient_text
from reid_edge.upstream.outbox.records import malformed


def open_file(path: Path, *, timeout: float = 5.0) -> sqlite3.Connection:
    """Open a file, to be used from any thread; text in it that is not UTF-8 is read as far as it can be.

    Args:
        path: The file; made if it is not there.
        timeout: Seconds to wait for another program's lock.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.text_factory = lenient_text
    return connection


class _Cursor(sqlite3.Cursor):
    """A cursor that an error closes, since the error's traceback would else keep the file open and locked."""

    @contextlib.contextmanager
    def _closed_by_an_error(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:  # damage has come into the text of SQLite's error
            self.close()
            raise malformed("the definition of a table") from error
        except sqlite3.Error:
            self.close()
            raise

    def execute(self, statement: str, values: Any = (), /) -> Any:
        with self._closed_by_an_error():
            return super().execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Any], /) -> Any:
        with self._closed_by_an_error():
            return super().executemany(statement, rows)

    def fetchone(self) -> Any:
        with self._closed_by_an_error():
            return super().fetchone()

    def fetchmany(self, *arguments: Any) -> list[Any]:
        with self._closed_by_an_error():
            return super().fetchmany(*arguments)

    def fetchall(self) -> list[Any]:
        with self._closed_by_an_error():
            return super().fetchall()

    def __next__(self) -> Any:
        with self._closed_by_an_error():
            return super().__next__()


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, statement: str, values: Any = (), /) -> Any:
        return self.cursor().execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Any], /) -> Any:
        return self.cursor().executemany(statement, rows)
