"""Quality of features on labelled images: ranking, and error rates by threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reid_edge.benchmark.embedded import Embedded, embed_splits
from reid_edge.benchmark.embedder import Embedder
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.evaluation.comparison import Rule
from reid_edge.evaluation.identification import Identification, identify
from reid_edge.evaluation.ranking import Ranking, rank
from reid_edge.evaluation.single_shot import rank_single_shot
from reid_edge.evaluation.verification import Verification, verify
from reid_edge.manifest import Distance
from reid_edge.progress import Notify
from reid_edge.runtime import Extractor


@dataclass(frozen=True)
class Errors:
    """Error rates by threshold on one split: of single pairs, and of searches."""

    verification: Verification
    identification: Identification


def measure_accuracy(extractor: Extractor, splits: Mapping[Split, Sequence[LabelledImage]], notify: Notify) -> Ranking:
    """Measure CMC, mAP and mINP of an extractor's features, by the distance that its manifest names.

    Args:
        extractor: Any engine and precision.
        splits: See :func:`reid_edge.benchmark.embedder.load_splits`.
        notify: Called before each stage.

    Raises:
        FrameError: A file is not a readable image.
        InputError: No query has a match.
    """
    embedder = Embedder((extractor,))
    return measure_rankings(embed_splits(embedder, [splits], notify), notify, distance=embedder.distance)[0]


def measure_rankings(
    embedded: Embedded,
    notify: Notify,
    *,
    distance: Distance,
    rule: Rule = "market1501",
    single_shot: bool = False,
    rerank: bool = False,
) -> list[Ranking]:
    """Measure CMC, mAP and mINP on each random split.

    Args:
        embedded: Features of the splits.
        notify: Called before the work, with the number of queries.
        distance: ``cosine`` or ``euclidean``.
        rule: Which gallery images are left out of a query's search.
        single_shot: Take one gallery image of each person at a time, of other cameras than the query's.
        rerank: Re-rank the first 100 results of each search; not with ``single_shot``.

    Raises:
        InputError: No query has a match.
    """
    on_block = notify("ranking", sum(len(split["query"].features) for split in embedded.splits))
    if single_shot:
        return [
            rank_single_shot(split["query"], split["gallery"], distance=distance, on_block=on_block)
            for split in embedded.splits
        ]
    return [
        rank(split["query"], split["gallery"], distance=distance, rule=rule, rerank=rerank, on_block=on_block)
        for split in embedded.splits
    ]


def measure_errors(
    embedded: Embedded, notify: Notify, *, distance: Distance, rule: Rule = "market1501"
) -> list[Errors]:
    """Measure error rates by threshold on each random split; arguments and errors as for the rankings."""
    on_block = notify("error rates", 2 * sum(len(split["query"].features) for split in embedded.splits))
    return [
        Errors(
            verify(split["query"], split["gallery"], distance=distance, rule=rule, on_block=on_block),
            identify(split["query"], split["gallery"], distance=distance, rule=rule, on_block=on_block),
        )
        for split in embedded.splits
    ]


def mean_ranking(rankings: Sequence[Ranking]) -> Ranking:
    """Return the mean over random splits, all of the same weight; ``queries`` is their sum."""
    ranks = min(len(ranking.cmc) for ranking in rankings)
    return Ranking(
        cmc=np.mean([ranking.cmc[:ranks] for ranking in rankings], axis=0),
        mean_ap=float(np.mean([ranking.mean_ap for ranking in rankings])),
        mean_inp=float(np.mean([ranking.mean_inp for ranking in rankings])),
        queries=sum(ranking.queries for ranking in rankings),
    )
