"""``reid-edge gallery calibrate``: from which similarity two tracklets are the same person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reid_edge.cli.gallery_limit import limit_evidence
from reid_edge.cli.gallery_options import JsonOption, KeyOption, StoreArgument, opened, print_json, stored_record
from reid_edge.console import console, print_table, say
from reid_edge.errors import UnsupportedRateError, UsageError
from reid_edge.gallery import audit as auditing
from reid_edge.gallery.calibrating import Report, calibrate, keep
from reid_edge.gallery.comparison import forget_comparison
from reid_edge.gallery.labelled_pairs import read_pairs
from reid_edge.gallery.people import MOST_TOGETHER
from reid_edge.gallery.store import Store
from reid_edge.gallery.times import now_us, parse_time
from reid_edge.identity.calibration import Calibration
from reid_edge.identity.intervals import Rate
from reid_edge.wording import counted

#: Rates of false matches of the curve.
RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)

#: Why there is no calibration.
NONE_MADE = (
    "no camera has seen two people at the same time, and no labelled pair is of two people, so it is not known how "
    "similar two people are"
)


def calibrate_gallery(
    store: StoreArgument,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="CSV file of labelled pairs, a line each: two ids as 'gallery search' shows them, then same or "
            "different, e.g. door/3fa2b7c9/17,yard/88ab01c2/4,same. People follow them at the next 'gallery identify'."
        ),
    ] = None,
    false_match_rate: Annotated[
        float | None,
        typer.Option(help="Store the calibration only if its pairs support this rate of false matches, e.g. 0.01."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Learn only from people in sight after this time, e.g. since a camera was moved: 2h, 3d."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hash of the model, or its beginning, if the gallery holds several.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Store nothing; exit with 1 if a camera's mean has changed since the last time."),
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what was learnt of --model.")] = False,
    pseudonym_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from which similarity two tracklets are the same person.

    Needs no labels: people whom one camera saw at the same time are two people. 'gallery search' then says same, unsure
    or other.
    """
    if false_match_rate is not None and not 0 < false_match_rate < 1:
        raise UsageError(f"expected --false-match-rate above 0 and below 1, got {false_match_rate:g}.")
    if forget:
        _forget(store, model)
        return
    labelled = None if pairs is None else read_pairs(pairs)
    now = now_us()
    since_us = 0 if since is None else parse_time(since, now_us=now)
    with opened(store) as gallery:
        report = calibrate(
            gallery,
            now_us=now,
            find=lambda name: stored_record(gallery, name, pseudonym_key),
            pairs=labelled,
            model_hash=model,
            since_us=since_us,
            required=not check or false_match_rate is not None,
        )
        if false_match_rate is not None:
            if report.calibration is None:
                raise UsageError(f"--false-match-rate needs a calibration: {NONE_MADE}.")
            report.calibration.similarity_for(false_match_rate)
        if not check:
            keep(gallery, report, now_us=now)
    if as_json:
        print_json(_fields(report))
    else:
        _print(report, gallery.name)
    _tell(report, stored=not check)
    if check and report.moved:
        raise typer.Exit(1)


def _forget(uri: str, model: str | None) -> None:
    with opened(uri) as gallery:
        model_hash = _one_model(gallery, model)
        auditing.record(gallery, "calibrate", {"model_hash": model_hash, "forgotten": True}, at_us=now_us())
        there = forget_comparison(gallery, model_hash)
    said = "what was learnt is removed" if there else "there was nothing to remove"
    console.print(f"{gallery.name}, model {model_hash}: {said}", soft_wrap=True)


def _one_model(gallery: Store, model: str | None) -> str:
    known = [one.model_hash for one in gallery.models() if model is None or one.model_hash.startswith(model)]
    if len(known) != 1:
        raise UsageError(f"{gallery.name} takes {len(known)} models of that name; name one: --model HASH.")
    return known[0]


def _points(calibration: Calibration) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for asked in RATES:
        try:
            similarity = calibration.similarity_for(asked)
        except UnsupportedRateError as error:
            points.append({"asked": asked, "pairs_needed": error.needed, "pairs": error.given})
            continue
        point = calibration.curve([similarity])[0]
        points.append(
            {
                "asked": asked,
                "similarity": similarity,
                "false_match": _rate_fields(point.false_match),
                "miss": None if point.miss is None else _rate_fields(point.miss),
            }
        )
    return points


def _rate_fields(rate: Rate) -> dict[str, float]:
    return dict(vars(rate))


def _fields(report: Report) -> dict[str, Any]:
    made, comparison = report.calibration, report.comparison
    centring = comparison.scale.centring
    return {
        "model_hash": centring.model_hash,
        "version": comparison.scale.version,
        "centring": centring.version,
        "made_us": comparison.made_us,
        "tracklets": comparison.tracklets,
        "cameras": {
            name: {"tracklets": camera.tracklets, "people": camera.people, "weight": camera.weight}
            for name, camera in centring.cameras.items()
        },
        "pairs_of_two_people": {
            "pairs": 0 if made is None else len(made.impostors),
            "independent": _independent(made),
            "seen_together": report.seen_together,
            "labelled": len(report.labelled.different),
        },
        "pairs_of_one_person": {
            "pairs": 0 if made is None else len(made.genuine),
            "from": "none" if made is None else made.genuine_from,
        },
        "labelled_pairs_left_out": report.labelled.missing,
        "people": None
        if comparison.known is None
        else {**vars(comparison.known), "strangers": comparison.known.strangers},
        "decisions": len(report.decisions),
        "moved_cameras": report.moved,
        "curve": [] if made is None else _points(made),
    }


def _independent(made: Calibration | None) -> int:
    return 0 if made is None else min(len(made.impostors), made.impostor_tracklets)


def _print(report: Report, store: str) -> None:
    made, comparison = report.calibration, report.comparison
    centring = comparison.scale.centring
    rows = [
        ["model", centring.model_hash],
        ["version", comparison.scale.version],
        ["tracklets", f"{comparison.tracklets:,}"],
        ["cameras centred", ", ".join(f"{name} {one.weight:.0%}" for name, one in centring.cameras.items()) or "none"],
        ["pairs of two people", f"{report.seen_together:,} seen together, {len(report.labelled.different):,} labelled"],
        ["they are worth", f"{_independent(made):,} independent ones"],
        ["pairs of one person", _genuine_text(made)],
        ["limit of people", limit_evidence(comparison.known)],
    ]
    print_table(f"calibration of {store}", ("", ""), rows)
    if made is None:
        return
    print_table(
        "false matches against misses (95 % limits)",
        ("at most", "from similarity", "false matches", "misses"),
        [_row(point) for point in _points(made)],
    )


def _genuine_text(made: Calibration | None) -> str:
    return "none" if made is None or not len(made.genuine) else f"{len(made.genuine):,}, from {made.genuine_from}"


def _row(point: dict[str, Any]) -> list[str]:
    if "similarity" not in point:
        return [f"{point['asked']:.3g}", f"refused: needs {point['pairs_needed']:,} independent pairs", "", ""]
    miss = point["miss"]
    return [
        f"{point['asked']:.3g}",
        f"{point['similarity']:.2f}",
        _rate_text(point["false_match"]),
        "not known" if miss is None else _rate_text(miss),
    ]


def _rate_text(rate: dict[str, float]) -> str:
    return f"{rate['rate']:.2%} ({rate['low']:.2%} to {rate['high']:.2%})"


def _tell(report: Report, *, stored: bool) -> None:
    """Print on standard error what the figures do not say."""
    made = report.calibration
    if made is None:
        say(f"note: no calibration was made: {NONE_MADE}.")
    elif made.genuine_from == "none":
        say(
            "note: misses are not known: no tracklet has two parts. Label some pairs that are one person: --pairs FILE."
        )
    elif made.genuine_from != "labels":
        say(
            "note: misses are those of parts of one tracklet, of one camera and seconds apart; between cameras more is "
            "missed. --pairs FILE with pairs that are one person tells how much."
        )
    if report.decisions and stored:
        say(
            f"note: {counted(len(report.decisions), 'labelled pair')} kept as an operator's decisions: 'gallery "
            f"identify{' --again' if made is None else ''}' joins those of one person and keeps those of two people "
            f"apart{'' if made is None else f' (with --again, if there are more than {MOST_TOGETHER:,} tracklets)'}."
        )
    if report.labelled.missing:
        say(f"note: {counted(report.labelled.missing, 'labelled pair')} left out: the gallery no longer holds them.")
    if report.damaged:
        say(f"note: what was there before could not be read{' and was replaced' if stored else ''}: {report.damaged}")
    for name, over in report.moved.items():
        say(
            f"warning: the features of {name} have changed since the last calibration ({over:.1f} times the limit): it "
            "was moved, or its light is another. Learn from what it has seen since: gallery calibrate --since TIME."
        )
