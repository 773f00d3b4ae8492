"""The answer of ``reid-edge gallery search``: a table or fields of JSON, and what they do not say themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from reid_edge.cli.file_positions import FilePositions
from reid_edge.cli.gallery_options import short_id
from reid_edge.console import console, print_table
from reid_edge.errors import UnsupportedRateError
from reid_edge.gallery import search as searching
from reid_edge.gallery.ranking import Ranking
from reid_edge.gallery.times import duration_text, time_text
from reid_edge.identity.background import LEAST_TRACKLETS
from reid_edge.identity.calibration import MOST_BY_CHANCE

WHAT_A_COSINE_MEANS = (
    "The cosine only sorts the results; 1 is the same picture. It is not a probability: different people often "
    "reach 0.7 and more, and the first one is only the most similar person that is stored, even if the picture shows "
    "nobody. Look at the video before you believe it."
)
WHAT_MAPPED_MEANS = (
    "mapped: stored by another model, and compared through the map of 'gallery migrate'. Such cosines are lower than "
    "those of one model, and get no verdict."
)

#: Columns of CSV.
SEARCH_COLUMNS = (
    "id", "camera", "epoch", "track", "first_us", "last_us", "first_seen", "last_seen", "cosine", "mapped", "verdict",
    "similarity", "false_match_rate", "false_match_limit", "miss_rate", "strangers_expected", "captured_us", "crops",
    "quality", "confidence", "x1", "y1", "x2", "y2", "final", "model_hash", "position_s", "file",
)  # fmt: skip


def found_fields(found: searching.Found, positions: FilePositions) -> dict[str, Any]:
    """Return what was found as JSON shows it."""
    best = found.best
    key = {"camera": best.camera, "epoch": best.incarnation, "seq": best.seq}
    seen = {name: value for name, value in dataclasses.asdict(best).items() if name != "incarnation"}
    times: dict[str, Any] = {"first_us": found.first_us, "last_us": found.last_us}
    if (position := positions.of(best.tracklet, found.first_us)) is not None:
        times |= {"position_s": position.seconds, "file": position.file}
    return {
        "id": best.id,
        "cosine": round(found.cosine, 6),
        "mapped": found.mapped,
        **key,
        **seen,
        **times,
        **_judged_fields(found),
    }


def csv_fields(found: searching.Found, positions: FilePositions) -> dict[str, Any]:
    """Return what was found as CSV shows it: the values of JSON, with the edges of the box apart."""
    fields: dict[str, Any] = {"position_s": None, "file": None, **found_fields(found, positions)}
    edges = zip(("x1", "y1", "x2", "y2"), found.best.box, strict=True)
    times = {"first_seen": time_text(found.first_us, utc=True), "last_seen": time_text(found.last_us, utc=True)}
    fields |= {**times, **{name: round(edge, 5) for name, edge in edges}}
    return {name: fields[name] for name in SEARCH_COLUMNS}


def _judged_fields(found: searching.Found) -> dict[str, Any]:
    """Return what a similarity means; all is null without a calibration."""
    verdict = found.verdict
    miss = None if verdict is None else verdict.miss
    return {
        "verdict": None if verdict is None else verdict.word,
        "similarity": None if found.similarity is None else round(found.similarity, 4),
        "false_match_rate": None if verdict is None else verdict.false_match.rate,
        "false_match_limit": None if verdict is None else verdict.false_match.high,
        "miss_rate": None if miss is None else miss.rate,
        "strangers_expected": None if verdict is None else round(verdict.by_chance, 3),
    }


def print_found(found: Sequence[searching.Found], named: str, positions: FilePositions, *, utc: bool) -> None:
    """Print tracklets, best first."""
    if not found:
        console.print("nothing found: no other tracklet of these cameras and that time is held", soft_wrap=True)
        return
    judged = any(one.verdict is not None for one in found)
    places = [positions.of(one.best.tracklet, one.first_us) for one in found]
    rows = [
        [
            *(_judged_cells(one) if judged else []),
            f"{one.cosine:.3f}" + " mapped" * one.mapped,
            str(one.best.track),
            time_text(one.first_us, utc=utc),
            *([str(place or "")] if any(places) else []),
            duration_text(one.last_us - one.first_us),
            short_id(one.best),
        ]
        for one, place in zip(found, places, strict=True)
    ]
    verdicts = ["verdict", "false matches", "strangers"] if judged else []
    position = ["in the file"] if any(places) else []
    headers = [*verdicts, "cosine", "track", "first seen", *position, "for", "id"]
    print_table(f"nearest to {named}", headers, rows, whole=True)


def _judged_cells(one: searching.Found) -> list[str]:
    verdict = one.verdict
    if verdict is None:
        return ["?", "", ""]
    return [
        verdict.word,
        f"{verdict.false_match.rate:.2%} (≤ {verdict.false_match.high:.2%})",
        f"{verdict.by_chance:.2g}",
    ]


def notes(store: str, found: Sequence[searching.Found], ranking: Ranking | None) -> Iterator[str]:
    """Yield what an answer does not say itself."""
    if any(one.mapped for one in found):
        yield WHAT_MAPPED_MEANS
    if ranking is None or not ranking.calibrated:
        command = f"reid-edge gallery calibrate {store}"
        yield (
            f"{WHAT_A_COSINE_MEANS} '{command}' learns from which similarity it is one person; it needs "
            f"{LEAST_TRACKLETS} tracklets, and people who were seen at the same time, or labelled pairs."
        )
    if ranking is None:
        return
    if ranking.trouble:
        yield f"warning: in the plain order of cosines, without a verdict: {ranking.trouble}"
    comparison = ranking.comparison
    if comparison is None:
        return
    unknown = {one.best.camera for one in found} - comparison.scale.centring.cameras.keys()
    if comparison.scale.centring.on and unknown:
        yield f"note: too little is known of what {', '.join(sorted(unknown))} sees to centre it."
    if comparison.calibration is None:
        return
    made = time_text(comparison.made_us, utc=True)
    yield (
        f"same: at most {ranking.false_match_rate:.2%} of strangers are so similar. 'strangers': how many of all that "
        f"were compared are expected to be so similar by chance; 'same' takes fewer than {MOST_BY_CHANCE:g}. "
        f"Calibrated {made} with {comparison.tracklets:,} tracklets. Look at the video before you believe it."
    )
    try:
        comparison.calibration.similarity_for(ranking.false_match_rate)
    except UnsupportedRateError as error:
        yield f"note: nothing can be called the same: {error}"
