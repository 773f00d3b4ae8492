"""Lists of what a Milvus gallery holds, put together from the times of its rows: Milvus cannot group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from reid_edge.gallery.entries import Key
from reid_edge.gallery.store.base import ELSEWHERE, CameraSummary, Span, StoredGap, TrackletSpan
from reid_edge.gallery.store.milvus_client import Row


def span_of(rows: Iterable[Row]) -> Span:
    """Return the number of rows and their first and last time."""
    times = [(row["first_us"], row["last_us"]) for row in rows]
    first, last = zip(*times, strict=True) if times else ((), ())
    return Span(len(times), min(first, default=None), max(last, default=None))


def tracklets_of(rows: Iterable[Row]) -> list[TrackletSpan]:
    """Return the tracklets of rows, the last seen first."""
    spans: dict[Key, TrackletSpan] = {}
    for row in rows:
        key = row["camera"], row["epoch"], row["track"]
        old = spans.get(key) or TrackletSpan(*key, row["seq"], row["first_us"], row["last_us"], 0)
        spans[key] = TrackletSpan(
            *key,
            max(old.seq, row["seq"]),
            min(old.first_us, row["first_us"]),
            max(old.last_us, row["last_us"]),
            old.observations + 1,
        )
    return [span for _, span in sorted(spans.items(), key=lambda item: (-item[1].last_us, item[0]))]


def cameras_of(rows: Iterable[Row], gaps: Iterable[StoredGap]) -> list[CameraSummary]:
    """Return the contents of each camera, from its rows and gaps."""
    counts: dict[str, int] = defaultdict(int)
    tracklets: dict[str, set[tuple[str, int]]] = defaultdict(set)
    spans: dict[str, list[int]] = defaultdict(list)
    lost: dict[str, list[int]] = defaultdict(list)
    elsewhere: dict[str, int] = defaultdict(int)
    for row in rows:
        camera = row["camera"]
        counts[camera] += 1
        tracklets[camera].add((row["epoch"], row["track"]))
        seen = (*spans[camera], row["first_us"], row["last_us"])
        spans[camera] = [min(seen), max(seen)]
    for gap in gaps:
        if gap.reason == ELSEWHERE:
            elsewhere[gap.camera] += gap.count
        else:
            lost[gap.camera].append(gap.count)
    return [
        CameraSummary(
            camera=camera,
            observations=counts[camera],
            tracklets=len(tracklets[camera]),
            first_us=min(spans[camera], default=None),
            last_us=max(spans[camera], default=None),
            gaps=len(lost[camera]),
            lost=sum(lost[camera]),
            elsewhere=elsewhere[camera],
        )
        for camera in sorted(counts.keys() | lost.keys() | elsewhere.keys())
    ]
