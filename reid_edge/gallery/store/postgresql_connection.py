"""Connections to PostgreSQL whose calls end: the server's own time limits come first, then this end cuts the line."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reid_edge.errors import MissingExtraError, SettingsError
from reid_edge.redaction import without_passwords
from reid_edge.upstream.dialling import addresses
from reid_edge.upstream.encryption import OWNED_RISK, check_encrypted, is_loopback, without_owned_risk

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise MissingExtraError(error.name or "psycopg", "postgresql", "a gallery in PostgreSQL") from error

Connection = psycopg.Connection[tuple[Any, ...]]

#: Longest call of those that a collector waits for, of a deletion on time, and of those that a person waits for.
CALL_S, EXPIRY_S, LONG_S = 15.0, 60.0, 600.0
#: Time to connect, the look-up of names and all addresses together, unless the URI has a ``connect_timeout``.
CONNECT_S = 10
#: libpq waits no shorter than this for an address.
_LEAST_ADDRESS_S = 2
#: The thread that connects gets so much longer to say what was late.
_WORD_S = 0.5
#: First characters of a host that is a socket of this machine.
_LOCAL = ("/", "@")
#: The server gives up so much earlier than this end cuts the line: the connection stays usable, and says why.
_MARGIN_S = 3.0
#: What libpq is told unless the URI says otherwise: a host that has vanished is noticed within half a minute.
_LINE: dict[str, Any] = {
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
        SettingsError: Features would go over the network unencrypted, or to a server that need not prove its name.
        psycopg.Error: The server cannot be reached within 10 s, refuses, or does not answer the first statement.
    """
    opening = _Opening({**_LINE, **verified(uri)})
    opening.start()
    db = opening.connection()
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


class _Opening(threading.Thread):
    """Opens a connection in a thread: what libpq looks up itself, for a service or Kerberos, has no deadline.

    Args:
        parameters: What libpq is told.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__(name="connection to PostgreSQL", daemon=True)
        self._parameters, self._most_s = parameters, _connect_s(parameters)
        self._lock = threading.Lock()
        self._given_up = False
        self._outcome: Connection | Exception | None = None

    def connection(self) -> Connection:
        """Wait for the connection; one that comes too late is closed.

        Raises:
            psycopg.Error: There is none, or not in time.
        """
        try:
            self.join(self._most_s + _WORD_S)
        finally:
            with self._lock:
                self._given_up = True
        if self._outcome is None:
            raise psycopg.OperationalError(
                f"no connection within {self._most_s:g} s: are the server and this machine's DNS server reachable?"
            )
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def run(self) -> None:
        outcome: Connection | Exception
        try:
            outcome = psycopg.connect(autocommit=True, **_with_addresses(self._parameters, self._most_s))
        except Exception as error:  # for the thread that waits
            outcome = error
        with self._lock:
            if not self._given_up:
                self._outcome = outcome
            elif not isinstance(outcome, Exception):
                outcome.close()


def _connect_s(parameters: dict[str, Any]) -> float:
    given = parameters.get("connect_timeout", CONNECT_S)
    try:
        wanted_s = int(float(given))
    except (ValueError, OverflowError):
        raise psycopg.ProgrammingError(f"expected connect_timeout in seconds, got {given!r}") from None
    return max(wanted_s, _LEAST_ADDRESS_S) if wanted_s > 0 else CONNECT_S


def _with_addresses(parameters: dict[str, Any], most_s: float) -> dict[str, Any]:
    """Return parameters with the addresses of all hosts, each with its share of the time.

    psycopg and libpq would look the names up without a deadline.  The names stay beside the addresses: the server's
    certificate is checked against them.

    Raises:
        psycopg.Error: No host has an address, or not in time.
    """
    deadline = time.monotonic() + most_s
    found, failure = [], ""
    for host, number, port in _places(parameters):
        numbers = [number]
        if host and not number and not host.startswith(_LOCAL):
            try:
                there = addresses(host, 0, max(0.0, deadline - time.monotonic()))
                numbers = list(dict.fromkeys(str(address[0]) for _, address in there))
            except OSError as error:
                failure = f"{host}: {error}"
                continue
        found += [(host, each, port) for each in numbers]
    if not found:
        raise psycopg.OperationalError(failure)
    left_s = max(deadline - time.monotonic(), 0.0)
    share = {"connect_timeout": max(int(left_s) // len(found), _LEAST_ADDRESS_S)}
    expanded = dict(zip(("host", "hostaddr", "port"), map(",".join, zip(*found, strict=True)), strict=True))
    return {**parameters, **{name: value for name, value in expanded.items() if value.strip(",")}, **share}


def _places(parameters: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return host, address and port of each server that is named; one empty place if libpq has to find out."""
    if _service(parameters):
        return [("", "", "")]
    lists = [_listed(parameters, name) for name in ("host", "hostaddr", "port")]
    ports = lists[2]
    if len(ports) == 1:
        lists[2] = ports * max(map(len, lists))
    if len({len(each) for each in lists if each != [""]}) > 1:
        return [("", "", "")]  # libpq says what is wrong with it
    return [(host, number, port) for host, number, port in itertools.zip_longest(*lists, fillvalue="")]


def _listed(parameters: dict[str, Any], name: str) -> list[str]:
    return str(parameters.get(name) or os.environ.get(f"PG{name.upper()}") or "").split(",")


def verified(uri: str) -> dict[str, Any]:
    """Return libpq's parameters of an address; off this machine the server has to prove its name, ``verify-full``.

    libpq itself would ask for TLS and go on without if the server, or somebody before it, says that there is none.

    Raises:
        SettingsError: The address gives another ``sslmode``, and nobody owns the risk in it.
        psycopg.Error: It is not an address.
    """
    address, owned = without_owned_risk(uri)
    try:
        given: dict[str, Any] = dict(conninfo_to_dict(address))
    except UnicodeError:
        raise SettingsError(
            f"{without_passwords(uri)} is not an address: %XX in it must stand for UTF-8 text."
        ) from None
    hosts = _hosts(given)
    if hosts:
        # Of the address alone: PGSSLMODE and service files may be anybody's, and say what their owners do not know.
        mode = given.get("sslmode") or ("verify-full" if not all(map(is_loopback, hosts)) else "")
        check_encrypted(
            without_passwords(uri),
            hosts,
            verified=mode == "verify-full",
            loopback=True,
            owned=owned,
            way_out=(
                f"Leave out sslmode={mode}, and give sslrootcert=FILE or sslrootcert=system; or, if others on the "
                f"network may read and alter it all, add {OWNED_RISK} to the address."
            ),
        )
        if mode:
            given["sslmode"] = mode
        if mode == "verify-full":
            _check_authority(without_passwords(uri), given)
    return given


def _check_authority(shown: str, given: dict[str, Any]) -> None:
    """Refuse at once what no attempt could verify: without a file of authorities libpq fails each time."""
    authority = given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or "~/.postgresql/root.crt"
    if authority != "system" and not _service(given) and not Path(authority).expanduser().is_file():
        raise SettingsError(
            f"{shown} is not on this machine, so its server must prove its name, and there is no {authority} to "
            "check that with. Add sslrootcert=FILE, the certificate of the authority that signed the server's, or "
            "sslrootcert=system to the address."
        )


def _service(given: dict[str, Any]) -> str:
    return str(given.get("service") or os.environ.get("PGSERVICE") or "")


def _hosts(given: dict[str, Any]) -> list[str]:
    """Return where an address leads, without sockets of this machine."""
    if service := _service(given):
        return [f"service {service}"]  # a file says where
    pairs = itertools.zip_longest(_listed(given, "host"), _listed(given, "hostaddr"), fillvalue="")
    hosts = [number or name for name, number in pairs]
    return [host for host in hosts if host and not host.startswith(_LOCAL)]


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
