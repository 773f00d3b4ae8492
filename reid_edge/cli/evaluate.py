"""``reid-edge evaluate``: ranking quality of bundles on labelled images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from reid_edge.cli.evaluation_tables import print_evaluation
from reid_edge.cli.shared_options import (
    DeviceOption,
    EngineOption,
    FlipOption,
    ForceOption,
    PartialOption,
    PrecisionOption,
    SkipBadOption,
    ThreadsOption,
    TrustedKeyOption,
)
from reid_edge.console import extra, print_table, progress_bars, say
from reid_edge.errors import BundleError, UsageError
from reid_edge.files import check_output, write_whole


def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE", help="A bundle. Several form an ensemble: their features are concatenated."),
    ],
    root: Annotated[Path, typer.Option(help="Folder of the dataset, or its CSV file.")],
    dataset: Annotated[
        str, typer.Option(help="Dataset, e.g. market1501, or folder for your own (docs/datasets.md).")
    ] = "market1501",
    split: Annotated[
        str | None,
        typer.Option(
            help="Random split of VIPeR or GRID (0 to 9) or of CUHK03 of 2014 (0 to 19), or all for the mean. Default: "
            "all, or the one that the model was trained on."
        ),
    ] = None,
    same_camera: Annotated[
        bool,
        typer.Option(
            "--same-camera",
            help="Also count matches of the query's own camera, for images of one or of unknown cameras. The figures "
            "are higher; compare them only with one another.",
        ),
    ] = False,
    flip: FlipOption = False,
    distance: Annotated[
        Literal["cosine", "euclidean"] | None, typer.Option(help="Distance of features. Default: the bundle's.")
    ] = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    device: DeviceOption = "CPU",
    trusted_key: TrustedKeyOption = None,
    partial: PartialOption = False,
    skip_bad: SkipBadOption = False,
    thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds",
            help="Also print error rates by threshold: false matches and misses of single pairs (FMR, FNMR, EER), and "
            "of searches for people who are in the gallery or not (FPIR, FNIR).",
        ),
    ] = False,
    tracklets: Annotated[
        bool,
        typer.Option(
            "--tracklets", help="Average the features of each tracklet, as a camera does, in query and gallery."
        ),
    ] = False,
    tracklet_gap: Annotated[
        int, typer.Option(min=0, help="Largest gap between two images of a tracklet, frames.")
    ] = 250,
    centre: Annotated[
        bool,
        typer.Option(
            "--centre",
            help="Measure also with each camera's estimated offset subtracted, learnt from the gallery without labels.",
        ),
    ] = False,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank",
            help="Measure also with the first 100 results of each search re-ranked (k-reciprocal). With --centre, "
            "measure both together too.",
        ),
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures to this file (docs/evaluation.md).")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Measure ranking quality (CMC, mAP and mINP) on a labelled dataset, with any engine.

    With a .safetensors checkpoint of the recipes classify or attributes, measure its classifier on the test split.
    """
    if len(bundles) == 1 and bundles[0].suffix == ".safetensors" and bundles[0].is_file():
        if json is not None or thresholds or tracklets or centre or rerank:
            raise UsageError(
                "--json, --thresholds, --tracklets, --centre and --rerank are for bundles; "
                "a classifier has no features."
            )
        _evaluate_classifier(bundles[0], dataset, root, partial=partial, skip_bad=skip_bad)
        return
    from reid_edge.benchmark.embedder import Embedder
    from reid_edge.benchmark.evaluation import evaluate_embedder
    from reid_edge.benchmark.evaluation_task import EvaluationTask
    from reid_edge.bundle import open_bundle
    from reid_edge.runtime import Extractor
    from reid_edge.runtime.golden import check_extractor

    if json is not None:
        check_output(json, force=force)
    opened = [open_bundle(path, trusted_keys=trusted_key or ()) for path in bundles]
    task = EvaluationTask(
        dataset=dataset,
        root=root,
        split=split,
        partial=partial,
        same_camera=same_camera,
        tracklet_gap=tracklet_gap if tracklets else None,
        centre=centre,
        rerank=rerank,
    )
    numbers = task.numbers(opened)
    embedder = Embedder(
        tuple(
            Extractor(bundle, engine=engine, precision=precision, threads=threads, device=device) for bundle in opened
        ),
        flip=flip,
    )
    for extractor in embedder.extractors:
        if extractor.on_other_device:
            check_extractor(extractor)
    with progress_bars() as notify:
        result = evaluate_embedder(
            embedder,
            task,
            notify,
            numbers=numbers,
            distance=distance,
            errors=thresholds,
            skip_bad=skip_bad,
            say=say,
        )
    print_evaluation(result)
    if json is not None:
        write_whole(json, msgspec.json.encode(result) + b"\n")


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
