"""Measure searches of a SQLite gallery: plain, centred, re-ranked and judged.

    python benchmarks/search.py [--tracklets 100000] [--folder DIR]

Made-up features of n/5 people and 50 cameras (those of ``identity.py scale``), one observation of each tracklet, in a
new file.  Times are those of ``search`` with the top 10, its line of the audit included: CPU seconds of the process,
which other programs do not lengthen much, and elapsed time.  The features are in memory, as in a process that searches
again and again; the first search of a process reads them.
"""

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from reid_edge.gallery.calibrating import calibrate, keep
from reid_edge.gallery.entries import Entry, Record, Selection
from reid_edge.gallery.ranking import ranking_for
from reid_edge.gallery.search import find_one, query_of, search
from reid_edge.gallery.store import open_store

MODEL = "ab" * 32
SEARCHES = 20


def scene(count):
    spec = importlib.util.spec_from_file_location("identity_benchmark", Path(__file__).with_name("identity.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.scene(count)


def filled(store, sightings, start_us):
    store.accept_model(MODEL, sightings.features.shape[1], now_us=start_us)
    for start in range(0, len(sightings), 5000):
        rows = range(start, min(start + 5000, len(sightings)))
        store.add([record(sightings, row, start_us) for row in rows])


def record(sightings, row, start_us):
    first, last = (start_us + int(1e6 * times[row]) for times in (sightings.first_s, sightings.last_s))
    entry = Entry(
        camera=sightings.cameras[row],
        incarnation="e1",
        seq=row + 1,
        model_hash=MODEL,
        track=row + 1,
        captured_us=first,
        first_us=first,
        last_us=last,
        box=(0.1, 0.1, 0.2, 0.5) if row % 2 else (0.6, 0.1, 0.7, 0.5),
        confidence=0.9,
        quality=0.5,
        crops=4,
        final=True,
    )
    return Record(entry, sightings.features[row])


def timed(store, queries, now_us, **options):
    """Return median CPU and elapsed milliseconds of a search; each begins as the command does."""
    cpu, elapsed = [], []
    for query in queries:
        began, clock = time.process_time(), time.perf_counter()
        ranking = None if options.get("plain") else ranking_for(store, MODEL, now_us=now_us, rerank="rerank" in options)
        search(store, query, selection=Selection(), purpose="benchmark", now_us=now_us, ranking=ranking)
        cpu.append(1000 * (time.process_time() - began))
        elapsed.append(1000 * (time.perf_counter() - clock))
    return float(np.median(cpu)), float(np.median(elapsed))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="folder for the file of the gallery; default: a temporary one")
    arguments = parser.parse_args()
    now_us = time.time_ns() // 1000
    sightings = scene(arguments.tracklets)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, contextlib.ExitStack() as closing:
        store = closing.enter_context(contextlib.closing(open_store(f"sqlite:{folder}/gallery.db")))
        store.set_retention_hours(96)
        filled(store, sightings, now_us - int(73 * 3600e6))
        rows = np.random.default_rng(0).choice(len(sightings), SEARCHES, replace=False)
        queries = [query_of(find_one(store, f"{sightings.cameras[row]}/e1/{row + 1}", now_us=now_us)) for row in rows]
        print(f"{arguments.tracklets:,} tracklets, load {os.getloadavg()[0]:.0f}\n")
        print("| search | CPU, ms | elapsed, ms |\n|---|---|---|")
        timed(store, queries[:1], now_us, plain=True)  # reads the features
        show("plain", timed(store, queries, now_us, plain=True))
        began, clock = time.process_time(), time.perf_counter()
        ranking_for(store, MODEL, now_us=now_us)
        learnt = 1000 * (time.process_time() - began), 1000 * (time.perf_counter() - clock)
        show("centred", timed(store, queries, now_us))
        show("centred, re-ranked", timed(store, queries, now_us, rerank=True))
        began, clock = time.process_time(), time.perf_counter()
        keep(
            store,
            calibrate(store, now_us=now_us, find=lambda name: find_one(store, name, now_us=now_us)),
            now_us=now_us,
        )
        calibrated = 1000 * (time.process_time() - began), 1000 * (time.perf_counter() - clock)
        show("centred, re-ranked, with verdicts", timed(store, queries, now_us, rerank=True))
        show("learning the means, once", learnt)
        show("calibrate", calibrated)


def show(name, times):
    print(f"| {name} | {times[0]:.1f} | {times[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
