"""Evaluate bundles on a dataset: embed its images, rank them, count errors, and sum up over its random splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reid_edge.benchmark.accuracy import mean_ranking, measure_errors, measure_rankings
from reid_edge.benchmark.embedded import embed_splits
from reid_edge.benchmark.embedder import SPLITS, Embedder
from reid_edge.benchmark.evaluation_result import Evaluation, pair_errors, search_errors
from reid_edge.benchmark.evaluation_task import EvaluationTask
from reid_edge.benchmark.treatment import evaluate_treated
from reid_edge.datasets.loading import has_random_splits
from reid_edge.images import left_out
from reid_edge.manifest import Distance
from reid_edge.progress import Notify


def evaluate_embedder(
    embedder: Embedder,
    task: EvaluationTask,
    notify: Notify,
    *,
    numbers: Sequence[int],
    distance: Distance | None = None,
    errors: bool = False,
    skip_bad: bool = False,
    say: Callable[[str], object] = lambda _line: None,
) -> Evaluation:
    """Evaluate one model, or several together, on a dataset.

    Args:
        embedder: Computes the features.
        task: The dataset, and how it is searched.
        notify: Called before each stage.
        numbers: Numbers of the random splits (:meth:`EvaluationTask.numbers`).
        distance: ``cosine`` or ``euclidean``; None: the manifests'.
        errors: Measure error rates by threshold too.
        skip_bad: Leave out files that are no readable images.
        say: Takes a line about files that were left out.

    Raises:
        DatasetError: The dataset is not there or not complete, or its tracklets are not known.
        FrameError: A file is not a readable image.
        InputError: No query has a match, or the manifests name different distances and none is given.
        UsageError: The task asks for centring, and cameras are not known.
    """
    distance = distance or embedder.distance
    numbered = [task.load(number) for number in numbers]
    embedded = embed_splits(embedder, numbered, notify, skip_bad=skip_bad, tracklet_gap=task.tracklet_gap)
    if embedded.unreadable:
        paths = {image.path for splits in numbered for images in splits.values() for image in images}
        say(left_out(embedded.unreadable, len(paths)))
    mean = mean_ranking(
        measure_rankings(embedded, notify, distance=distance, rule=task.rule, single_shot=task.single_shot)
    )
    measured = measure_errors(embedded, notify, distance=distance, rule=task.rule) if errors else None
    treated = evaluate_treated(embedded, task, notify, distance=distance, errors=errors, say=say)
    queries, gallery = (sum(len(parts[split].features) for parts in embedded.splits) for split in SPLITS)
    bundles = [extractor.bundle for extractor in embedder.extractors]
    return Evaluation(
        bundles=tuple(str(bundle.path) for bundle in bundles),
        model_hashes=tuple(bundle.manifest.model_hash for bundle in bundles),
        trained_on=tuple(bundle.manifest.model.dataset for bundle in bundles),
        engine=embedder.description,
        dataset=task.dataset,
        splits=tuple(numbers) if has_random_splits(task.dataset) else (),
        rule=task.rule,
        single_shot=task.single_shot,
        distance=distance,
        tracklet_gap=task.tracklet_gap,
        queries=queries,
        queries_with_match=mean.queries,
        gallery=gallery,
        unreadable=len(embedded.unreadable),
        cmc=tuple(mean.cmc.tolist()),
        mean_ap=mean.mean_ap,
        mean_inp=mean.mean_inp,
        pairs=pair_errors(measured) if measured is not None else None,
        searches=search_errors(measured) if measured is not None else None,
        treated=treated,
    )
