"""Features per second from a camera's outbox into a gallery, with an fsync at every commit of both, by transport.

    python benchmarks/delivery.py --rounds 3

Camera and gallery are processes of their own, the broker is mosquitto with the deployed configuration.  The camera puts
as fast as it can (8 features a commit, as one frame may bring), and the clock stops when the last one is stored,
acknowledged and deleted.  *put alone* and *store alone* are what the two files do without anything between them;
*no files* is transport, encoding and decoding without either.  Latency is from handing a batch over to its
acknowledgement, at a steady 200 features a second.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from reid_edge.gallery.collector import Collector
from reid_edge.gallery.http import HttpServer, gallery_app
from reid_edge.gallery.mqtt import MqttCollector
from reid_edge.gallery.store import open_store
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.http import HttpTransport
from reid_edge.upstream.message import decode_ack, decode_batch, encode_ack, encode_batch, encode_observation
from reid_edge.upstream.mqtt import MqttTransport
from reid_edge.upstream.observation import Ack, Observation
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.tls import TlsFiles
from reid_edge.upstream.transport import LocalTransport, Transport
from tests.broker import Broker, make_all_certs, tls_files

CAMERA = "camA"
SPAWN = multiprocessing.get_context("spawn")
STEADY_RATE = 200
STEADY_S = 5


@dataclass(frozen=True)
class Job:
    """One measurement, for all processes that take part."""

    kind: str  # mqtts, mqtt, https, http, local
    folder: Path
    certs: Path
    features: int
    rows_per_put: int
    batch_rows: int
    rate: float  # features per second; 0: as fast as possible
    files: bool

    def tls(self, name: str) -> TlsFiles | None:
        """Certificates of one end; None where there is no TLS."""
        return tls_files(self.certs, name) if self.kind.endswith("s") else None


def observations(first: int, count: int) -> list[Observation]:
    now = time.time_ns() // 1000
    rng = np.random.default_rng(0)
    features = rng.standard_normal((64, 512)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return [
        Observation(
            model_hash="ab" * 32,
            track=track,
            captured_us=now,
            first_us=now,
            last_us=now,
            box=(0.1, 0.2, 0.3, 0.9),
            confidence=0.9,
            quality=0.5,
            crops=3,
            final=True,
            feature=features[track % 64],
        )
        for track in range(first, first + count)
    ]


class NoStore:
    """Answers as a collector does and keeps nothing."""

    def receive(self, batches: Sequence[bytes], **_senders: Any) -> list[bytes]:
        """Acknowledge everything."""
        decoded = map(decode_batch, batches)
        return [
            encode_ack(Ack(each.camera, each.incarnation, tuple(seq for seq, _ in each.observations)))
            for each in decoded
        ]


@contextlib.contextmanager
def collecting(job: Job) -> Iterator[Any]:
    if not job.files:
        yield NoStore()
        return
    store = open_store(f"sqlite:{job.folder / 'gallery.db'}", create=True)
    yield Collector(store)
    store.close()


def run_gallery(job: Job, broker_uri: str, pipe: Connection) -> None:
    with collecting(job) as collector:
        if job.kind.startswith("mqtt"):
            tls = job.tls("collector")
            served: Any = MqttCollector(collector, broker_uri, tls=tls, insecure=tls is None)
            while not served.connected:
                time.sleep(0.01)
            pipe.send(broker_uri)
        else:
            tls = job.tls("gallery")
            app = gallery_app(collector, metrics=lambda: (b"", ""))
            served = HttpServer(app, f"{job.kind}://127.0.0.1:0", tls=tls, insecure=tls is None)
            pipe.send(f"{job.kind}://localhost:{served.port}")
        start = cpu_s()
        pipe.recv()
        pipe.send((cpu_s() - start, getattr(getattr(served, "stats", None), "commits", 0)))
        served.close()


def transport_to(job: Job, uri: str, collector: Any) -> Transport:
    tls = job.tls(CAMERA)
    if job.kind == "local":
        return LocalTransport(collector.receive)
    if job.kind.startswith("mqtt"):
        return MqttTransport(uri, camera=CAMERA, tls=tls, insecure=tls is None)
    return HttpTransport(uri, tls=tls, insecure=tls is None)


def run_camera(job: Job, uri: str, pipe: Connection) -> None:
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting(job)) if job.kind == "local" else None
        transport = transport_to(job, uri, collector)
        stack.callback(transport.close)
        warm_up(transport)
        start, start_cpu = time.perf_counter(), cpu_s()
        latencies = (deliver if job.files else send_only)(job, transport)
        pipe.send((time.perf_counter() - start, cpu_s() - start_cpu, latencies))


def warm_up(transport: Transport) -> None:
    """Connect, and let the gallery see its first model."""
    rows = [(1, encode_observation(observations(0, 1)[0]))]
    while True:
        with contextlib.suppress(Exception):
            transport.send(encode_batch(CAMERA, "warm-up", rows))
            if transport.acks(2.0):
                return


def deliver(job: Job, transport: Transport) -> list[float]:
    outbox = Outbox(job.folder / "outbox.db")
    delivery = Delivery(outbox, transport, camera=CAMERA, batch_rows=job.batch_rows)
    delivery.start()
    put_all(job, outbox.put)
    assert delivery.stop(drain_s=120), delivery.stats
    outbox.close()
    return list(delivery.stats.latencies_s)


def put_all(job: Job, put: Callable[[list[Observation]], None]) -> None:
    start = time.perf_counter()
    for first in range(0, job.features, job.rows_per_put):
        put(observations_of(first, min(job.rows_per_put, job.features - first)))
        if job.rate and (left := start + (first + job.rows_per_put) / job.rate - time.perf_counter()) > 0:
            time.sleep(left)


POOL = observations(0, 1024)


def observations_of(first: int, count: int) -> list[Observation]:
    return [POOL[number % len(POOL)] for number in range(first, first + count)]


def send_only(job: Job, transport: Transport) -> list[float]:
    """Up to 8000 rows under way, as Delivery has them."""
    rows = [encode_observation(each) for each in POOL[: job.batch_rows]]
    sent = acknowledged = 0
    while acknowledged < job.features:
        while sent < job.features and sent - acknowledged < 8000:
            transport.send(encode_batch(CAMERA, "raw", [(sent + i + 1, row) for i, row in enumerate(rows)]))
            sent += len(rows)
            acknowledged += sum(len(decode_ack(ack).seqs) for ack in transport.acks(0))
        acknowledged += sum(len(decode_ack(ack).seqs) for ack in transport.acks(1.0))
    return []


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Result:
    """One round's features a second, milliseconds of processor time a feature, and seconds."""

    rate: float
    camera_cpu: float
    broker_cpu: float
    gallery_cpu: float
    rows_per_commit: float
    latencies: list[float]


def measure(job: Job) -> Result:
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        broker = None
        if job.kind.startswith("mqtt"):
            broker = stack.enter_context(Broker(job.folder / "broker", job.certs if job.kind == "mqtts" else None))
        uri, gallery = "", None
        if job.kind != "local":
            gallery, child = SPAWN.Pipe()
            process = SPAWN.Process(target=run_gallery, args=(job, broker.uri if broker else "", child))
            process.start()
            stack.callback(process.join)
            uri = gallery.recv()
        camera, child = SPAWN.Pipe()
        process = SPAWN.Process(target=run_camera, args=(job, uri, child))
        process.start()
        stack.callback(process.join)
        seconds, camera_cpu, latencies = camera.recv()
        gallery_cpu, commits = 0.0, 0
        if gallery:
            gallery.send(None)
            gallery_cpu, commits = gallery.recv()
        broker_cpu = broker.cpu_s() if broker else 0.0
    cpu = (1000 * each / job.features for each in (camera_cpu, broker_cpu, gallery_cpu))
    return Result(job.features / seconds, *cpu, job.features / commits if commits else 0.0, latencies)


def put_alone(job: Job) -> float:
    shutil.rmtree(job.folder, ignore_errors=True)
    outbox = Outbox(job.folder / "alone.db")
    start = time.perf_counter()
    put_all(job, outbox.put)
    seconds = time.perf_counter() - start
    outbox.close()
    return job.features / seconds


def store_alone(job: Job, batches_per_commit: int) -> float:
    rows = [encode_observation(each) for each in POOL[: job.batch_rows]]
    batches = [
        encode_batch(CAMERA, "alone", [(first + i + 1, row) for i, row in enumerate(rows)])
        for first in range(0, job.features, job.batch_rows)
    ]
    store = open_store(f"sqlite:{job.folder / f'alone{batches_per_commit}.db'}", create=True)
    collector = Collector(store)
    start = time.perf_counter()
    for first in range(0, len(batches), batches_per_commit):
        collector.receive(batches[first : first + batches_per_commit])
    seconds = time.perf_counter() - start
    store.close()
    return len(batches) * job.batch_rows / seconds


def fsync_ms(folder: Path) -> float:
    times = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(100):
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def machine(folder: Path) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return (
        f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}; fdatasync of 4 KiB {fsync_ms(folder):.2f} ms (median); "
        f"load before {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows-per-put", type=int, default=8)
    parser.add_argument("--batch-rows", type=int, default=64)
    parser.add_argument("--transports", nargs="+", default=["mqtts", "mqtt", "https", "http", "local"])
    parser.add_argument("--folder", type=Path, help="On the disk to be measured; a temporary one if not given.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run_all(options, Path(name))


def run_all(options: argparse.Namespace, folder: Path) -> None:
    certs = make_all_certs(folder / "certs")
    print(f"{machine(folder)}. {options.features} features, {options.rounds} rounds, medians.\n")

    def job(kind: str, features: int = options.features, rate: float = 0.0, files: bool = True) -> Job:
        return Job(kind, folder / "run", certs, features, options.rows_per_put, options.batch_rows, rate, files)

    full: dict[str, list[Result]] = {kind: [] for kind in options.transports}
    raw: dict[str, list[float]] = {kind: [] for kind in options.transports}
    alone: dict[str, list[float]] = {}
    for _ in range(options.rounds):  # in turn: on a noisy machine all see the same noise
        for kind in options.transports:
            full[kind].append(measure(job(kind)))
            if kind != "local":
                raw[kind].append(measure(job(kind, files=False)).rate)
        alone.setdefault(f"put, {options.rows_per_put} a commit", []).append(put_alone(job("local")))
        for batches in (1, 8, 64):
            label = f"store, {batches * options.batch_rows} a commit"
            alone.setdefault(label, []).append(store_alone(job("local"), batches))
    print(
        "| transport | features/s | no files, features/s | rows a commit | CPU ms a feature: camera | broker | gallery "
        "| latency ms: p50 | p99 |\n|---|---|---|---|---|---|---|---|---|"
    )
    for kind in options.transports:
        steady = measure(job(kind, features=STEADY_RATE * STEADY_S, rate=STEADY_RATE)).latencies
        print_row(kind, full[kind], raw[kind], steady)
    print("\n| alone | features/s |\n|---|---|")
    for label, rates in alone.items():
        print(f"| {label} | {statistics.median(rates):,.0f} |")


def print_row(kind: str, rounds: list[Result], raw: list[float], steady: list[float]) -> None:
    def median(name: str) -> float:
        return statistics.median(getattr(each, name) for each in rounds)

    raw_text = f"{statistics.median(raw):,.0f}" if raw else "–"
    rows = f"{median('rows_per_commit'):.0f}" if median("rows_per_commit") else "–"
    p50, p99 = (1000 * float(np.quantile(steady, q)) for q in (0.5, 0.99))
    cpu = " | ".join(f"{median(f'{who}_cpu'):.3f}" for who in ("camera", "broker", "gallery"))
    print(f"| {kind} | {median('rate'):,.0f} | {raw_text} | {rows} | {cpu} | {p50:.1f} | {p99:.1f} |", flush=True)


if __name__ == "__main__":
    main()
