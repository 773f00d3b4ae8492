"""Measure how long a gallery takes to give a new tracklet to a person, beside tracklets that have people already.

    python benchmarks/live_people.py [--tracklets 100000] [--people 10000] [--new 300]

Made-up features of 512 numbers in a SQLite file; the people that are known already are written, not found.
"""

import argparse
import contextlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from reid_edge.features import l2_normalised
from reid_edge.gallery.entries import Entry, Record
from reid_edge.gallery.live_people import LivePeople
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.people import Assignment, PeopleChange
from reid_edge.gallery.times import now_us

MODEL = "ab" * 32
CAMERAS = 50
PIECE = 10_000


def records(count: int, people: np.ndarray, offsets: np.ndarray, *, start: int, seed: int) -> tuple[list, np.ndarray]:
    generator = np.random.default_rng(seed)
    who, camera = generator.integers(len(people), size=count), generator.integers(CAMERAS, size=count)
    noise = generator.normal(size=(count, people.shape[1])).astype(np.float32)
    features = l2_normalised(people[who] + offsets[camera] + 0.7 * noise).astype(np.float32)
    first = now_us() - 3600_000_000 + generator.integers(3_000_000_000, size=count)
    rows = [
        Record(
            Entry(
                camera=f"camera{camera[row]}", incarnation="e1", seq=start + row, model_hash=MODEL, track=start + row,
                captured_us=int(first[row]), first_us=int(first[row]), last_us=int(first[row]) + 5_000_000,
                box=(0.1, 0.1, 0.2, 0.5), confidence=0.9, quality=0.9, crops=5, final=True,
            ),
            features[row],
        )
        for row in range(count)
    ]  # fmt: skip
    return rows, who


def assignment(row: Record, person: int) -> Assignment:
    entry = row.entry
    return Assignment(
        camera=entry.camera, incarnation=entry.incarnation, track=entry.track, person=person, model_hash=MODEL,
        seq=entry.seq, first_us=entry.first_us, last_us=entry.last_us, how="assigned", similarity=4.0, reason="known",
        centring="", calibration="", at_us=entry.last_us,
    )  # fmt: skip


def main(tracklets: int, count: int, new: int) -> None:
    generator = np.random.default_rng(0)
    people = generator.normal(size=(count, 512)).astype(np.float32)
    offsets = 0.5 * generator.normal(size=(CAMERAS, 512)).astype(np.float32)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(open_store(f"sqlite:{Path(folder) / 'gallery.db'}")) as store,
    ):
        store.accept_model(MODEL, 512, now_us=now_us())
        for start in range(0, tracklets, PIECE):
            rows, who = records(min(PIECE, tracklets - start), people, offsets, start=start, seed=start + 1)
            store.add(rows)
            change = PeopleChange(
                assignments=[assignment(row, int(one) + 1) for row, one in zip(rows, who, strict=True)],
                next_person=count + 1,
            )
            store.change_people(change, revision=store.people_state().revision)
        live = LivePeople(store)
        begin, cpu = time.perf_counter(), time.process_time()
        live.work()
        loaded_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        rows, who = records(new, people, offsets, start=tracklets, seed=7)
        assigning, whole = [], []
        for row in rows:
            store.add([row])
            live.take([row])
            begin = time.perf_counter()
            live.work()
            whole.append(1000 * (time.perf_counter() - begin))
        (population,) = live._populations.values()
        rows, _ = records(new, people, offsets, start=tracklets + new, seed=8)
        for row in rows:
            sighting = live_sighting(row)
            begin = time.thread_time()
            population._online.add(sighting)
            assigning.append(1000 * (time.thread_time() - begin))
        rows, _ = records(new, people, offsets, start=tracklets + 2 * new, seed=9)
        begin = time.perf_counter()
        store.add(rows)
        live.take(rows)
        live.work()
        together = 1000 * (time.perf_counter() - begin) / new
        found = {one.track: one.person for one in store.assignments()}
        right = np.mean([found[tracklets + place] == one + 1 for place, one in enumerate(who)])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{tracklets:,} tracklets of {count:,} people, {memory:.0f} MB")
    print(f"read in {loaded_s:.1f} s ({cpu_s:.1f} s of CPU time)")
    print(f"compared and assigned, CPU time: {np.median(assigning):.2f} ms (99 %: {np.quantile(assigning, 0.99):.2f})")
    print(f"one tracklet, with its commit: {np.median(whole):.2f} ms (99 %: {np.quantile(whole, 0.99):.2f})")
    print(f"{new} tracklets in one commit, stored and assigned: {together:.2f} ms each")
    print(f"{right:.0%} of the new tracklets are with the right person")


def live_sighting(row: Record):
    from reid_edge.gallery.held_tracklets import gathered_tracklets

    (tracklets,) = gathered_tracklets([row]).values()
    (tracklet,) = tracklets.values()
    return tracklet.sighting


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=300)
    options = parser.parse_args()
    main(options.tracklets, options.people, options.new)
