"""Tables of an evaluation: ranking quality, and error rates by threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reid_edge.console import print_table
from reid_edge.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reid_edge.benchmark.evaluation_result import Evaluation, PairErrors, Point, SearchErrors, Treated
    from reid_edge.evaluation.comparison import Rule

_RANKS = (1, 5, 10, 20)
#: What the title of the figures says of the rule that they follow.
_RULES: dict[Rule, str] = {
    "market1501": "",
    "other-cameras": ", each query searched for in the other camera",
    "same-camera": ", matches of the same camera counted: not comparable with figures across cameras",
}
#: Limits that the tables show, of all that the JSON holds.
_SHOWN = (0.1, 0.01, 0.001, 0.0001)


def print_evaluation(result: Evaluation) -> None:
    """Print the table of ranking quality, and those of error rates if they were measured."""
    figures = _figures(result)
    if result.treated:
        rows = [["unchanged", *figures.values()], *([_words(one), *_figures(one).values()] for one in result.treated)]
        print_table(f"{_title(result)}; {result.engine}", ("features and search", *figures), rows)
    else:
        print_table(_title(result), ("engine", *figures), [[result.engine, *figures.values()]])
    _print_errors(result, "")
    for one in result.treated:
        _print_errors(one, f", {_words(one)}")


def percent(share: float) -> str:
    """Format a share as per cent, without the sign."""
    return f"{100 * share:.2f}"


def _print_errors(result: Evaluation | Treated, words: str) -> None:
    if result.pairs is not None:
        _print_pairs(result.pairs, words)
    if result.searches is not None:
        _print_searches(result.searches, words)


def _figures(result: Evaluation | Treated) -> dict[str, str]:
    ranks = {f"R{k}": result.cmc[k - 1] for k in _RANKS if k <= len(result.cmc)}
    return {name: percent(value) for name, value in {**ranks, "mAP": result.mean_ap, "mINP": result.mean_inp}.items()}


def _words(treated: Treated) -> str:
    return ", ".join(word for word, holds in (("centred", treated.centred), ("re-ranked", treated.reranked)) if holds)


def _title(result: Evaluation) -> str:
    which = result.dataset
    if len(result.splits) > 1:
        which += f", mean of {len(result.splits)} random splits"
    tracklets = " tracklets" if result.tracklet_gap is not None else ""
    unreadable = f", {counted(result.unreadable, 'unreadable image')} left out" if result.unreadable else ""
    single_shot = ", one gallery image of each person at a time" if result.single_shot else ""
    return (
        f"{which}: {result.queries_with_match:,} of {counted(result.queries, 'query', 'queries')} with a match, "
        f"{result.gallery:,} gallery{tracklets}, {result.distance} distance"
        f"{_RULES[result.rule]}{single_shot}{unreadable}"
    )


def _print_pairs(errors: PairErrors, words: str) -> None:
    title = (
        f"Two images, one person or not{words}: {counted(errors.mated, 'pair')} of one person, "
        f"{errors.nonmated:,} of two; equal error rate {percent(errors.equal_error_rate)} %"
    )
    rows = [_cells(point) for point in _shown(errors.points)]
    print_table(title, ("FMR at most, %", "threshold", "FMR, %", "FNMR, %"), rows or [["–"] * 4])


def _print_searches(errors: SearchErrors, words: str) -> None:
    title = (
        f"Search with a threshold{words}: {counted(errors.mated, 'search', 'searches')} for people who are in the "
        f"gallery, {errors.nonmated:,} for people who are not"
    )
    first = {point.limit: point for point in errors.first_rank_points}
    rows = [[*_cells(point), percent(first[point.limit].miss_rate)] for point in _shown(errors.points)]
    heads = ("FPIR at most, %", "threshold", "FPIR, %", "FNIR, %", "FNIR at rank 1, %")
    print_table(title, heads, rows or [["–"] * 5])


def _shown(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if any(abs(point.limit / limit - 1) < 1e-6 for limit in _SHOWN)]


def _cells(point: Point) -> list[str]:
    threshold = "–" if point.threshold is None else f"{point.threshold:.4f}"
    return [f"{100 * point.limit:g}", threshold, f"{100 * point.false_rate:.3g}", percent(point.miss_rate)]
