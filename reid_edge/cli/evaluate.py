"""``reid-edge evaluate``: ranking quality of bundles on labelled images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reid_edge.cli.shared_options import EngineOption, PrecisionOption, SkipBadOption, ThreadsOption, TrustedKeyOption
from reid_edge.console import extra, print_table, progress_bars, say
from reid_edge.errors import BundleError, UsageError

if TYPE_CHECKING:
    from reid_edge.bundle import Bundle
    from reid_edge.evaluation.comparison import Rule
    from reid_edge.evaluation.ranking import Ranking

_RANKS = (1, 5, 10, 20)
#: What the title of the figures says of the rule that they follow.
_RULES: dict[Rule, str] = {
    "market1501": "",
    "other-cameras": ", each query searched for in the other camera",
    "same-camera": ", matches of the same camera counted: not comparable with figures across cameras",
}


def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE", help="One bundle; or several, whose features are concatenated: an ensemble."),
    ],
    root: Annotated[Path, typer.Option(help="Folder of the dataset, or its CSV file.")],
    dataset: Annotated[
        str, typer.Option(help="Name of the dataset or kind, e.g. market1501 or folder (docs/datasets.md).")
    ] = "market1501",
    split: Annotated[
        str | None,
        typer.Option(
            help="Random split of VIPeR or GRID: 0 to 9, or all for the mean over the ten. If not given: all, or the "
            "one that the model was trained on."
        ),
    ] = None,
    same_camera: Annotated[
        bool,
        typer.Option(
            "--same-camera",
            help="Count matches of the query's own camera too, for images of one camera or of unknown cameras. Such "
            "figures are higher, and compare only with one another.",
        ),
    ] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Average each feature with that of the mirrored crop.")] = False,
    distance: Annotated[
        Literal["cosine", "euclidean"] | None, typer.Option(help="Distance of features; the bundle's own if not given.")
    ] = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    trusted_key: TrustedKeyOption = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="The dataset is a subset: do not check the number of images.")
    ] = False,
    skip_bad: SkipBadOption = False,
) -> None:
    """Measure ranking quality, CMC, mAP and mINP, of any engine on a labelled dataset.

    A checkpoint of the recipes classify or attributes in place of the bundle: measure its classifier on the test split.
    """
    if len(bundles) == 1 and bundles[0].suffix == ".safetensors" and bundles[0].is_file():
        _evaluate_classifier(bundles[0], dataset, root, partial=partial, skip_bad=skip_bad)
        return
    from reid_edge.benchmark.accuracy import Embedder, load_splits, mean_ranking, measure_splits
    from reid_edge.bundle import open_bundle
    from reid_edge.images import left_out
    from reid_edge.runtime import Extractor

    opened = [open_bundle(path, trusted_keys=trusted_key or ()) for path in bundles]
    numbers = _numbers(split, dataset, opened)
    for bundle in opened:
        _refuse_seen(bundle, dataset, numbers)
    rule = _rule(dataset, same_camera=same_camera)
    numbered = [
        load_splits(root, dataset=dataset, number=number, partial=partial, same_camera=same_camera)
        for number in numbers
    ]
    embedder = Embedder(
        tuple(Extractor(bundle, engine=engine, precision=precision, threads=threads) for bundle in opened), flip=flip
    )
    distance = distance or embedder.distance
    with progress_bars() as notify:
        measured = measure_splits(embedder, numbered, notify, distance=distance, rule=rule, skip_bad=skip_bad)
    queries, gallery = (sum(len(splits[kind]) for splits in numbered) for kind in ("query", "gallery"))
    if measured.unreadable:
        paths = {image.path for splits in numbered for images in splits.values() for image in images}
        say(left_out(measured.unreadable, len(paths)))
    mean = mean_ranking(measured.rankings)
    which = dataset if len(numbered) == 1 else f"{dataset}, mean of {len(numbered)} random splits"
    _print(
        f"{which}: {mean.queries:,} of {queries:,} queries have a match, {gallery:,} gallery, {distance} distance"
        f"{_RULES[rule]}{_left_out(measured.unreadable)}",
        embedder.description,
        mean,
    )


def _evaluate_classifier(path: Path, dataset: str, root: Path, *, partial: bool, skip_bad: bool) -> None:
    with extra("train", "evaluating a classifier"):
        from reid_edge.osnet.checkpoint import load_checkpoint
        from reid_edge.training.evaluator import evaluate_classifier

    checkpoint = load_checkpoint(path)
    if checkpoint.head is None:
        raise BundleError(
            f"{path} is a checkpoint without a classifier; expected a bundle, since files are evaluated as they will "
            f"run. Make one with: reid-edge export --checkpoint {shlex.quote(str(path))} --out BUNDLE"
        )
    with progress_bars() as notify:
        figures = evaluate_classifier(checkpoint, dataset, root, partial=partial, skip_bad=skip_bad, notify=notify)
    rows = [[path.name, *(f"{100 * value:.2f}" for value in figures.values())]]
    print_table(f"{dataset}, test split", ("classifier", *figures), rows)


def _left_out(unreadable: Sequence[Path]) -> str:
    return f", {len(unreadable):,} unreadable images left out" if unreadable else ""


def _refuse_seen(bundle: Bundle, dataset: str, numbers: list[int]) -> None:
    """Refuse splits whose queries show people that a model was trained on.

    Raises:
        UsageError: Such a split; with the one to use instead.
    """
    seen = _seen(bundle, dataset)
    if seen is not None and numbers != [seen]:
        raise UsageError(
            f"{bundle.path} was trained on {bundle.manifest.model.dataset}; half of its people are searched for in "
            f"any other split. Use --split {seen}; for a mean over all, train a model on each split."
        )


def _seen(bundle: Bundle, dataset: str) -> int | None:
    """Return the number of the dataset's random split that a model was trained on, if any."""
    from reid_edge.datasets.random_splits import SPLITS, described

    trained_on = bundle.manifest.model.dataset
    return next((number for number in range(SPLITS) if trained_on == described(dataset, number)), None)


def _rule(dataset: str, *, same_camera: bool) -> Rule:
    from reid_edge.datasets.loading import searches_other_cameras

    if same_camera:
        return "same-camera"
    return "other-cameras" if searches_other_cameras(dataset) else "market1501"


def _print(title: str, engine: str, result: Ranking) -> None:
    ranks = {f"R{k}": f"{100 * result.cmc[k - 1]:.2f}" for k in _RANKS if k <= len(result.cmc)}
    means = {"mAP": f"{100 * result.mean_ap:.2f}", "mINP": f"{100 * result.mean_inp:.2f}"}
    print_table(title, ("engine", *ranks, *means), [[engine, *ranks.values(), *means.values()]])


def _numbers(text: str | None, dataset: str, bundles: list[Bundle]) -> list[int]:
    """Return the numbers of the random splits that ``--split`` names; None: all, or the one that a model has seen.

    Raises:
        UsageError: It is neither a number nor ``all``, or it is ``all`` and the dataset has one split.
        DatasetError: There is no such dataset.
    """
    from reid_edge.datasets.loading import has_random_splits
    from reid_edge.datasets.random_splits import SPLITS

    if text is None:
        seen = [number for bundle in bundles if (number := _seen(bundle, dataset)) is not None]
        return seen[:1] or (list(range(SPLITS)) if has_random_splits(dataset) else [0])
    if text.isdecimal():
        return [int(text)]
    if text != "all":
        raise UsageError(f"--split takes a number from 0 to {SPLITS - 1}, or all; got '{text}'.")
    if not has_random_splits(dataset):
        raise UsageError(f"{dataset} has one split only, its own; leave out --split.")
    return list(range(SPLITS))
