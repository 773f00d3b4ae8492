"""Evaluation of the same features after what a gallery can do to them: centring, re-ranking, or both."""

from __future__ import annotations

from collections.abc import Callable

from reid_edge.benchmark.accuracy import mean_ranking, measure_errors, measure_rankings
from reid_edge.benchmark.embedded import Embedded
from reid_edge.benchmark.evaluation_result import Treated, pair_errors, search_errors
from reid_edge.benchmark.evaluation_task import EvaluationTask
from reid_edge.evaluation.centring import centred, gallery_centring
from reid_edge.identity.centring import LEAST_TRACKLETS
from reid_edge.manifest import Distance
from reid_edge.progress import Notify


def evaluate_treated(
    embedded: Embedded,
    task: EvaluationTask,
    notify: Notify,
    *,
    distance: Distance,
    errors: bool = False,
    say: Callable[[str], object] = lambda _line: None,
) -> tuple[Treated, ...]:
    """Evaluate with centring, with re-ranking, and with both, as far as the task asks for.

    Args:
        embedded: Features of the splits, as they are.
        task: How they are searched.
        notify: Called before each stage.
        distance: ``cosine`` or ``euclidean``; re-ranking and centring take features of unit length.
        errors: Measure error rates by threshold too, but of what is re-ranked.
        say: Takes a line if there is too little to learn the centring from.

    Raises:
        UsageError: Cameras are not known, which centring needs.
    """
    results = []
    ways = [(True, False), (False, True), (True, True)]
    for centre, rerank in ways:
        if (centre and not task.centre) or (rerank and not task.rerank):
            continue
        parts = _centred(embedded, say if not rerank else None) if centre else embedded
        mean = mean_ranking(
            measure_rankings(
                parts, notify, distance=distance, rule=task.rule, single_shot=task.single_shot, rerank=rerank
            )
        )
        counted = errors and not rerank
        measured = measure_errors(parts, notify, distance=distance, rule=task.rule) if counted else None
        results.append(
            Treated(
                centred=centre,
                reranked=rerank,
                cmc=tuple(mean.cmc.tolist()),
                mean_ap=mean.mean_ap,
                mean_inp=mean.mean_inp,
                pairs=pair_errors(measured) if measured is not None else None,
                searches=search_errors(measured) if measured is not None else None,
            )
        )
    return tuple(results)


def _centred(embedded: Embedded, say: Callable[[str], object] | None) -> Embedded:
    splits = []
    for parts in embedded.splits:
        centring = gallery_centring(parts["gallery"])
        if not centring.on and say is not None:
            say(
                f"the gallery has fewer than {LEAST_TRACKLETS} features, too few to tell what those of a camera have "
                "in common: nothing is centred."
            )
        splits.append({split: centred(part, centring) for split, part in parts.items()})
    return Embedded(tuple(splits), embedded.unreadable)
