"""Connections to PostgreSQL whose calls end: the server's own time limits come first, then this end cuts the line."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from reid_edge.errors import MissingExtraError

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise MissingExtraError(error.name or "psycopg", "postgresql", "a gallery in PostgreSQL") from error

Connection = psycopg.Connection[tuple[Any, ...]]

#: Longest call of those that a collector waits for, of a deletion on time, and of those that a person waits for.
CALL_S, EXPIRY_S, LONG_S = 15.0, 60.0, 600.0
CONNECT_S = 10
#: The server gives up so much earlier than this end cuts the line: the connection stays usable, and says why.
_MARGIN_S = 3.0
#: What libpq is told unless the URI says otherwise: a host that has vanished is noticed within half a minute.
_LINE: dict[str, Any] = {
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: What the server is told; those that it does not know, being older, are left out.  Milliseconds, but for keepalives.
_SESSION = {
    "statement_timeout": int((CALL_S - _MARGIN_S) * 1000),
    "lock_timeout": 10_000,
    "idle_in_transaction_session_timeout": 60_000,
    "client_connection_check_interval": 5_000,
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "synchronous_commit": "on",
}


def connect(uri: str) -> Connection:
    """Open a connection, in autocommit mode, whose statements have time limits.

    Raises:
        psycopg.Error: The server cannot be reached within 10 s, refuses, or does not answer the first statement.
    """
    given: dict[str, Any] = dict(conninfo_to_dict(uri))
    db: Connection = psycopg.connect(autocommit=True, **{**_LINE, **given})
    try:
        with cut_after(db, CALL_S):
            db.execute(
                "SELECT set_config(wanted.name, wanted.value, false) "
                "FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) JOIN pg_settings USING (name)",
                (list(_SESSION), [str(value) for value in _SESSION.values()]),
            )
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def limited(db: Connection, most_s: float) -> Iterator[None]:
    """Let the block's statements take up to ``most_s`` each, and the whole block no longer than that.

    Raises:
        psycopg.OperationalError: It took longer; the connection is closed.
    """
    with cut_after(db, most_s):
        if most_s <= CALL_S:  # the session's own limit is as good
            yield
            return
        _set_limit(db, most_s)
        try:
            yield
        finally:
            if not db.broken:
                _set_limit(db, CALL_S)


@contextlib.contextmanager
def cut_after(db: Connection, most_s: float) -> Iterator[None]:
    """End the connection if the block takes longer than ``most_s``, though the server says nothing at all.

    Raises:
        psycopg.OperationalError: It took longer; the connection is closed.
    """
    cut = threading.Event()
    # A second descriptor of the same socket: the first may be closed, and its number be another file's, at any time.
    with socket.socket(fileno=os.dup(db.pgconn.socket)) as line:

        def end() -> None:
            cut.set()
            with contextlib.suppress(OSError):  # the other end was faster
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(most_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.Error as error:
            if cut.is_set():
                raise psycopg.OperationalError(f"the database has not answered within {most_s:g} s") from error
            raise
        finally:
            timer.cancel()
            timer.join()
            if cut.is_set():
                db.close()


def _set_limit(db: Connection, most_s: float) -> None:
    db.execute("SELECT set_config('statement_timeout', %s, false)", (str(int((most_s - _MARGIN_S) * 1000)),))
