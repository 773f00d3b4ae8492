"""Measure reid_edge.identity on people who are labelled: ranking, people found, errors, time and memory.

    reid-edge extract BUNDLE market1501/bounding_box_train --out features.npy
    python benchmarks/identity.py quality features.npy [--identities 651:751]
    python benchmarks/identity.py scale 1000 10000 100000

The names of the images (features.sources.txt) tell person, camera, sequence and frame, as Market-1501 names its images.
A tracklet is all images of a person in one sequence of one camera; its feature is the mean of theirs.  ``--identities``
is a range of places in the order of the people's numbers; the last 100 of 751 are held out for judging.  ``scale`` uses
made-up features of n/10 people and 50 cameras, in a process each: they are clustered, loaded for assignment, and 500
more tracklets are assigned one at a time.
"""

import argparse
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_edge.evaluation.people import people_quality
from reid_edge.features import l2_normalised
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
        model_hash="model",
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
    online = OnlinePeople("model", centring, background)
    sightings = labelled.sightings
    for row in np.argsort(sightings.last_s, kind="stable"):
        online.add(
            Sighting(
                id=sightings.ids[row],
                camera=sightings.cameras[row],
                model_hash="model",
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
    print(f"| as now | {ranking(raw @ raw.T, labelled)} |")
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
    strangers = people[one] != people[other]
    everyone = scale.of_pairs(sightings, np.stack([one, other], axis=1)[strangers])
    print(f"\n{len(pairs)} pairs seen at the same time, of {made.impostor_tracklets} tracklets:")
    for rate in (0.05, 0.01):
        try:
            similarity = made.similarity_for(rate)
        except Exception as error:
            print(f"asked for {rate:.0%}: {error}")
        else:
            print(
                f"asked for {rate:.0%}: similarity {similarity:.2f}, "
                f"reached by {(everyone >= similarity).mean():.2%} of the pairs of strangers"
            )


def scene(count: int) -> Sightings:
    generator = np.random.default_rng(0)
    people = generator.normal(size=(count // 10, 512)).astype(np.float32)
    cameras = 0.5 * generator.normal(size=(50, 512)).astype(np.float32)
    who, camera = generator.integers(len(people), size=count), generator.integers(50, size=count)
    features = people[who] + cameras[camera] + 0.7 * generator.normal(size=(count, 512)).astype(np.float32)
    first = generator.uniform(0, 3 * 86400, count)
    return Sightings(
        model_hash="model",
        ids=tuple(f"{row:07d}" for row in range(count)),
        cameras=tuple(f"camera{number}" for number in camera),
        first_s=first,
        last_s=first + generator.uniform(3, 30, count),
        features=l2_normalised(features),
    )


def sighting(sightings: Sightings, row: int, *, again: bool = False) -> Sighting:
    """One tracklet; ``again``: as another one, a day later."""
    later = 4 * 86400.0 if again else 0.0
    return Sighting(
        id=sightings.ids[row] + ("+" if again else ""),
        camera=sightings.cameras[row],
        model_hash="model",
        first_s=float(sightings.first_s[row]) + later,
        last_s=float(sightings.last_s[row]) + later,
        feature=sightings.features[row],
    )


def scale_one(count: int) -> None:
    sightings = scene(count)
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
    for name in ("scale", "scale-one"):
        commands.add_parser(name).add_argument("counts", type=int, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "quality":
        quality(arguments.features, arguments.identities)
    elif arguments.command == "scale":
        scale(arguments.counts)
    else:
        scale_one(arguments.counts[0])
