"""Measure reid_edge.identity on people who are labelled: ranking, people found, errors, time and memory.

    reid-edge extract BUNDLE market1501/bounding_box_train --out features.npy
    python benchmarks/identity.py quality features.npy [--identities 651:751]
    python benchmarks/identity.py draws features.npy [--identities 0:651] [--people 15 30 100 300] [--draws 45]
    python benchmarks/identity.py scale 1000 10000 100000
    python benchmarks/identity.py live 1000 10000 100000

The names of the images (features.sources.txt) tell person, camera, sequence and frame, as Market-1501 names its images.
A tracklet is all images of a person in one sequence of one camera; its feature is the mean of theirs.  ``--identities``
is a range of places in the order of the people's numbers; the last 100 of 751 are held out for judging.  ``scale`` uses
made-up features of n/10 people and 50 cameras, in a process each: they are clustered, loaded for assignment, and 500
more tracklets are assigned one at a time.  ``live`` takes the people for known instead of clustering: 500 tracklets are
assigned one at a time beside n tracklets of n/10 people, and 20 searches with re-ranking and verdicts are made in a
SQLite gallery of the n tracklets.  Times are CPU time of all threads and, in brackets, time on the clock.
"""

import argparse
import itertools
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reid_edge.errors import UnsupportedRateError
from reid_edge.evaluation.people import people_quality
from reid_edge.features import l2_normalised
from reid_edge.gallery.calibrating import calibrate, keep
from reid_edge.gallery.entries import Entry, Record, Selection
from reid_edge.gallery.ranking import ranking_for
from reid_edge.gallery.search import find_one, query_of, search
from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us
from reid_edge.identity.background import measured_background
from reid_edge.identity.calibration import calibrated, measured_scale
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.constraints import CannotLink
from reid_edge.identity.neighbours import nearest
from reid_edge.identity.online import OnlinePeople
from reid_edge.identity.reranking import expanded_query, k_reciprocal_distances, neighbour_averaged
from reid_edge.identity.sightings import Sighting, Sightings

NAME = re.compile(r"^(\d{4})_c(\d)s(\d)_(\d{6})_\d\d")
FRAMES_A_SECOND = 25
SEQUENCE_S = 1e5  # more than a sequence lasts
LIST = 100  # candidates that are re-ranked
MODEL = "ab" * 32
NEW = 500  # tracklets that are assigned one at a time


@dataclass(frozen=True)
class Labelled:
    sightings: Sightings
    people: np.ndarray


def read_tracklets(path: Path, first: int, last: int) -> Labelled:
    sources = path.with_suffix(".sources.txt").read_text(encoding="utf-8").splitlines()
    names = np.array([[int(part) for part in NAME.match(Path(line).name).groups()] for line in sources])
    chosen = np.isin(names[:, 0], np.unique(names[:, 0])[first:last])
    features, names = np.load(path)[chosen], names[chosen]
    keys, group = np.unique(names[:, :3], axis=0, return_inverse=True)
    group = group.ravel()
    sums = np.zeros((len(keys), features.shape[1]))
    np.add.at(sums, group, features)
    frames = [names[group == place, 3] for place in range(len(keys))]
    start = keys[:, 2] * SEQUENCE_S
    sightings = Sightings(
        model_hash=MODEL,
        ids=tuple("{:04d}/{}/{}".format(*key) for key in keys),
        cameras=tuple(f"c{camera}" for camera in keys[:, 1]),
        first_s=start + np.array([one.min() for one in frames]) / FRAMES_A_SECOND,
        last_s=start + np.array([one.max() for one in frames]) / FRAMES_A_SECOND,
        features=l2_normalised(sums).astype(np.float32),
    )
    # ids that do not tell the person's number, so that their order says nothing
    order = np.random.default_rng(0).permutation(len(keys))
    ids = tuple(f"t{place:05d}" for place in order)
    return Labelled(_renamed(sightings, ids), keys[:, 0])


def _renamed(sightings: Sightings, ids: tuple[str, ...]) -> Sightings:
    return Sightings(
        model_hash=sightings.model_hash,
        ids=ids,
        cameras=sightings.cameras,
        first_s=sightings.first_s,
        last_s=sightings.last_s,
        features=sightings.features,
    )


def ranking(similarities: np.ndarray, labelled: Labelled) -> str:
    people, cameras = labelled.people, labelled.sightings.camera_numbers
    precisions, firsts = [], []
    for row, similar in enumerate(similarities):
        order = np.argsort(-similar, kind="stable")
        kept = ~((people == people[row]) & (cameras == cameras[row]))[order]
        matches = (people == people[row])[order][kept]
        if matches.any():
            places = np.flatnonzero(matches)
            precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            firsts.append(matches[0])
    return f"{100 * np.mean(precisions):.1f} / {100 * np.mean(firsts):.1f}"


def reranked(features: np.ndarray, how: str) -> np.ndarray:
    cosines = features @ features.T
    if how == "averaged":
        averaged = neighbour_averaged(features, nearest(features, 2))
        return averaged @ averaged.T
    answer = cosines - 10
    for row, similar in enumerate(cosines):
        listed = np.argsort(-np.where(np.arange(len(cosines)) == row, -2, similar), kind="stable")[:LIST]
        if how == "k-reciprocal":
            answer[row, listed] = -k_reciprocal_distances(features[row], features[listed])
        else:
            answer[row] = features @ expanded_query(features[row], features[listed])
    return answer


def people_found(found: np.ndarray, people: np.ndarray) -> str:
    quality = people_quality(found, people)
    return (
        f"{quality.pair_f1:.2f} | {quality.false_merges} | {quality.false_splits} | {100 * quality.idf1:.1f} | "
        f"{100 * quality.hota:.1f} | {100 * (1 - quality.unassigned):.1f} | "
        f"{quality.with_wrong_person} of {quality.assigned}: {100 * quality.wrong_share:.1f} %"
    )


def one_at_a_time(labelled: Labelled, learnt_from: Sightings) -> np.ndarray:
    """Assign in the order of time, with centring and background of other people before the same cameras."""
    centring = learnt_centring(learnt_from)
    background = measured_background(centring.applied(learnt_from))
    online = OnlinePeople(MODEL, centring, background)
    sightings = labelled.sightings
    for row in np.argsort(sightings.last_s, kind="stable"):
        online.add(
            Sighting(
                id=sightings.ids[row],
                camera=sightings.cameras[row],
                model_hash=MODEL,
                first_s=float(sightings.first_s[row]),
                last_s=float(sightings.last_s[row]),
                feature=sightings.features[row],
            )
        )
    return np.array([online.person_of(name) for name in sightings.ids])


def quality(path: Path, span: str) -> None:
    first, last = (int(part) for part in span.split(":"))
    labelled = read_tracklets(path, first, last)
    sightings, people = labelled.sightings, labelled.people
    raw, centred = sightings.features, learnt_centring(sightings).applied(sightings)
    means = {name: raw[np.array(sightings.cameras) == name].mean(axis=0) for name in sightings.camera_names}
    whole = l2_normalised(raw - np.stack([means[name] for name in sightings.cameras]))
    print(f"{path.name}, people {span}: {len(sightings)} tracklets of {len(np.unique(people))} people\n")
    print("| ranking | mAP / R1 |\n|---|---|")
    print(f"| unchanged | {ranking(raw @ raw.T, labelled)} |")
    print(f"| each camera's whole mean taken off | {ranking(whole @ whole.T, labelled)} |")
    print(f"| centring (shrunk) | {ranking(centred @ centred.T, labelled)} |")
    for how in ("k-reciprocal", "averaged", "expanded query"):
        print(f"| {how} | {ranking(reranked(raw, how), labelled)} |")
        print(f"| centring, {how} | {ranking(reranked(centred, how), labelled)} |")
    print(
        "\n| people | pairwise F1 | false merges | false splits | IDF1 | HOTA | assigned, % | with a wrong person |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for above in (0.5, 1.5, 2.25, None):
        what = "default" if above is None else f"above {above}"
        print(f"| clustered, {what} | {people_found(clustered(sightings, above=above).people, people)} |")
    if first >= 100:
        others = read_tracklets(path, 0, 100).sightings
        print(f"| one at a time | {people_found(one_at_a_time(labelled, others), people)} |")
    pairs = CannotLink(sightings).simultaneous_pairs()
    scale = measured_scale(sightings)
    made = calibrated(sightings, pairs, scale=scale)
    one, other = np.triu_indices(len(people), 1)
    every = np.stack([one, other], axis=1)
    similar, same = scale.of_pairs(sightings, every), people[one] == people[other]
    across = same & (sightings.camera_numbers[one] != sightings.camera_numbers[other])
    print(f"\n{len(pairs)} pairs seen at the same time, of {made.impostor_tracklets} tracklets:")
    for rate in (0.05, 0.02, 0.01, 0.005):
        try:
            similarity = made.similarity_for(rate)
        except UnsupportedRateError as error:
            print(f"asked for {rate:.1%}: {error}")
            continue
        reached, missed = similar[~same] >= similarity, similar[across] < similarity
        print(
            f"asked for {rate:.1%}: similarity {similarity:.2f}, reached by {reached.mean():.2%} of the pairs of "
            f"strangers ({reached.sum():,} of {len(reached):,}); {missed.mean():.1%} of pairs of one person between "
            f"cameras missed ({missed.sum():,} of {len(missed):,})"
        )


def drawn(labelled: Labelled, generator: np.random.Generator, *, people: int, two_cameras: int | None) -> Labelled:
    """Draw people at random: all of their tracklets, or one before each of two cameras, at times that tell nothing.

    Args:
        labelled: All tracklets.
        generator: Of the draw.
        people: Number of people.
        two_cameras: Which of the pairs of cameras, counted from 0; None: all cameras.
    """
    order = generator.permutation(len(labelled.people))
    sightings, who = labelled.sightings, labelled.people
    cameras = sightings.camera_numbers
    if two_cameras is not None:
        pairs = list(itertools.combinations(range(len(sightings.camera_names)), 2))
        pair = pairs[two_cameras % len(pairs)]
        firsts = {(who[row], cameras[row]): row for row in order if cameras[row] in pair}
        seen_by_both = [one for one in np.unique(who) if all((one, camera) in firsts for camera in pair)]
        chosen = generator.permutation(seen_by_both)[:people]
        order = np.array([firsts[one, camera] for one in chosen for camera in pair])
    else:
        order = order[np.isin(who[order], generator.permutation(np.unique(who))[:people])]
    rows = sightings.taken(order)
    apart_s = 100.0 * np.arange(len(order)) if two_cameras is not None else rows.first_s
    return Labelled(
        replace(rows, first_s=apart_s, last_s=apart_s + (rows.last_s - rows.first_s).clip(max=50)), who[order]
    )


def draws(path: Path, span: str, counts: list[int], number: int) -> None:
    """Print how many of the assigned tracklets are with a wrong person in galleries of few people."""
    labelled = read_tracklets(path, *map(int, span.split(":")))
    print(f"{path.name}, people {span}, {number} draws of each kind\n")
    print("| cameras | people | tracklets a draw | assigned | with a wrong person | draws with one |")
    print("|---|---|---|---|---|---|")
    for cameras, people in itertools.product(("two, one tracklet each", "all"), counts):
        found = []
        for draw in range(number):
            pair = draw if cameras != "all" else None
            some = drawn(labelled, np.random.default_rng(draw), people=people, two_cameras=pair)
            found.append((len(some.people), people_quality(clustered(some.sightings).people, some.people)))
        tracklets, assigned = sum(count for count, _ in found), sum(one.assigned for _, one in found)
        wrong = [one.with_wrong_person for _, one in found]
        print(
            f"| {cameras} | {people} | {tracklets / number:.0f} | {assigned / tracklets:.1%} "
            f"| {sum(wrong)} of {assigned:,} | {sum(map(bool, wrong))} |",
            flush=True,
        )


def scene(count: int) -> Labelled:
    generator = np.random.default_rng(0)
    people = generator.normal(size=(count // 10, 512)).astype(np.float32)
    cameras = 0.5 * generator.normal(size=(50, 512)).astype(np.float32)
    who, camera = generator.integers(len(people), size=count), generator.integers(50, size=count)
    features = people[who] + cameras[camera] + 0.7 * generator.normal(size=(count, 512)).astype(np.float32)
    first = generator.uniform(0, 3 * 86400, count)
    sightings = Sightings(
        model_hash=MODEL,
        ids=tuple(f"{row:07d}" for row in range(count)),
        cameras=tuple(f"camera{number}" for number in camera),
        first_s=first,
        last_s=first + generator.uniform(3, 30, count),
        features=l2_normalised(features),
    )
    return Labelled(sightings, who)


def sighting(sightings: Sightings, row: int, *, again: bool = False) -> Sighting:
    """One tracklet; ``again``: as another one, a day later."""
    later = 4 * 86400.0 if again else 0.0
    return Sighting(
        id=sightings.ids[row] + ("+" if again else ""),
        camera=sightings.cameras[row],
        model_hash=MODEL,
        first_s=float(sightings.first_s[row]) + later,
        last_s=float(sightings.last_s[row]) + later,
        feature=sightings.features[row],
    )


def scale_one(count: int) -> None:
    sightings = scene(count).sightings
    start, start_cpu = time.perf_counter(), time.process_time()
    found = clustered(sightings)
    batch_s, batch_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    query, features = sightings.features[0], sightings.features
    times = []
    for _ in range(20):
        start = time.perf_counter()
        cosines = features @ query
        listed = np.argpartition(cosines, -LIST)[-LIST:]
        listed = listed[np.argsort(-cosines[listed])]
        k_reciprocal_distances(query, features[listed])
        times.append(1000 * (time.perf_counter() - start))
    start = time.perf_counter()
    online = OnlinePeople.continued(found, (sighting(sightings, row) for row in range(count)))
    load_s = time.perf_counter() - start
    live = len(online)
    adding = []
    for row in np.random.default_rng(1).permutation(count)[:NEW]:
        new = sighting(sightings, int(row), again=True)
        start = time.perf_counter()
        online.add(new)
        adding.append(1000 * (time.perf_counter() - start))
    print(
        f"| {count:,} | {batch_s:.1f} ({batch_cpu_s:.1f}) | {memory:.0f} | {np.median(times):.1f} | {live:,} | "
        f"{load_s:.1f} | {np.median(adding):.2f} | {np.quantile(adding, 0.99):.2f} |",
        flush=True,
    )


class Stopwatch:
    """CPU time and time on the clock of each of several runs, milliseconds."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, float]] = []

    def __enter__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        now = time.process_time(), time.perf_counter()
        self.runs.append((1000 * (now[0] - self._start[0]), 1000 * (now[1] - self._start[1])))

    def at(self, share: float) -> str:
        cpu, clock = np.quantile(self.runs, share, axis=0)
        return f"{cpu:.1f} ({clock:.1f})"


def live_one(count: int) -> None:
    made = scene(count)
    sightings, people = made.sightings, made.people
    loading, adding = Stopwatch(), Stopwatch()
    with loading:
        centring = learnt_centring(sightings)
        online = OnlinePeople(MODEL, centring, measured_background(centring.applied(sightings)))
        online.load((sighting(sightings, row), int(people[row])) for row in range(count))
    live, events = len(online), 0
    for row in np.random.default_rng(1).permutation(count)[:NEW]:
        new = sighting(sightings, int(row), again=True)
        with adding:
            events += len(online.add(new))
    assert events >= NEW
    del online
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:{folder}/gallery.db")
        at = now_us()
        store.accept_model(MODEL, sightings.features.shape[1], now_us=at)
        records = [record(sightings, row, at) for row in range(count)]
        for start in range(0, count, 10_000):
            store.add(records[start : start + 10_000])
        keep(store, calibrate(store, now_us=at, find=lambda name: find_one(store, name, now_us=at)), now_us=at)
        searching = Stopwatch()
        for row in range(0, count, count // 21):
            with searching:
                ranking = ranking_for(store, MODEL, now_us=at, rerank=True)
                search(
                    store, query_of(records[row]), selection=Selection(), purpose="measured", now_us=at, ranking=ranking
                )
    first, searching.runs = searching.runs[0][0], searching.runs[1:]
    print(
        f"| {count:,} | {live:,} | {loading.at(0.5)} | {adding.at(0.5)} | {adding.at(0.99)} | {memory:.0f} | "
        f"{first:.0f} | {searching.at(0.5)} | {searching.at(0.9)} |",
        flush=True,
    )


def record(sightings: Sightings, row: int, at_us: int) -> Record:
    first_us = at_us - 4 * 86_400_000_000 + int(1e6 * sightings.first_s[row])
    last_us = first_us + int(1e6 * (sightings.last_s[row] - sightings.first_s[row]))
    entry = Entry(
        model_hash=MODEL, track=row, captured_us=first_us, first_us=first_us, last_us=last_us,
        box=(0.1 + 0.8 * (row % 7) / 7, 0.1, 0.15 + 0.8 * (row % 7) / 7, 0.5), confidence=0.9, quality=0.9, crops=5,
        final=True, camera=sightings.cameras[row], incarnation="e1", seq=row,
    )  # fmt: skip
    return Record(entry, sightings.features[row])


def live(counts: list[int]) -> None:
    print(
        "| tracklets | live people | loaded, ms | assign, ms | 99 % | memory, MB | first search, ms | "
        "search, ms | 90 % |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for count in counts:
        subprocess.run([sys.executable, __file__, "live-one", str(count)], check=True)


def scale(counts: list[int]) -> None:
    print(
        "| tracklets | clustered, s (of CPUs) | memory, MB | search and re-ranking of 100, ms | live people | "
        "loaded, s | assign, ms | 99 % |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for count in counts:
        subprocess.run([sys.executable, __file__, "scale-one", str(count)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_quality = commands.add_parser("quality")
    of_quality.add_argument("features", type=Path)
    of_quality.add_argument("--identities", default="651:751")
    of_draws = commands.add_parser("draws")
    of_draws.add_argument("features", type=Path)
    of_draws.add_argument("--identities", default="0:651")
    of_draws.add_argument("--people", type=int, nargs="+", default=[15, 30, 100, 300])
    of_draws.add_argument("--draws", type=int, default=45)
    for name in ("scale", "scale-one", "live", "live-one"):
        commands.add_parser(name).add_argument("counts", type=int, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "quality":
        quality(arguments.features, arguments.identities)
    elif arguments.command == "draws":
        draws(arguments.features, arguments.identities, arguments.people, arguments.draws)
    elif arguments.command == "scale":
        scale(arguments.counts)
    elif arguments.command == "live":
        live(arguments.counts)
    else:
        {"scale-one": scale_one, "live-one": live_one}[arguments.command](arguments.counts[0])
