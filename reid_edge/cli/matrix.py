"""``reid-edge matrix``: how well each model does on each dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from reid_edge.cli.evaluation_tables import percent
from reid_edge.cli.shared_options import (
    EngineOption,
    FlipOption,
    ForceOption,
    PartialOption,
    PrecisionOption,
    SkipBadOption,
    ThreadsOption,
    TrustedKeyOption,
)
from reid_edge.console import print_table, progress_bars, say
from reid_edge.errors import UsageError
from reid_edge.files import check_output, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reid_edge.benchmark.evaluation_result import Evaluation


def matrix(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE", help="Bundles, one for each row.")],
    on: Annotated[
        list[str],
        typer.Option(
            "--on", metavar="NAME=ROOT", help="Dataset and its folder, NAME=ROOT; one column each. May be repeated."
        ),
    ],
    flip: FlipOption = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    trusted_key: TrustedKeyOption = None,
    partial: PartialOption = False,
    skip_bad: SkipBadOption = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures of all pairs to this file.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Evaluate each of several bundles on each of several datasets, and print R1 / mAP as one table.

    Random splits are chosen as in 'evaluate': all, or the one that the model was trained on.
    """
    from reid_edge.benchmark.embedder import Embedder
    from reid_edge.benchmark.evaluation import evaluate_embedder
    from reid_edge.benchmark.evaluation_task import EvaluationTask
    from reid_edge.bundle import open_bundle
    from reid_edge.runtime import Extractor

    if json is not None:
        check_output(json, force=force)
    tasks = [EvaluationTask(dataset=name, root=root, partial=partial) for name, root in map(_dataset, on)]
    opened = [open_bundle(path, trusted_keys=trusted_key or ()) for path in bundles]
    numbers = [[task.numbers([bundle]) for task in tasks] for bundle in opened]
    for task, chosen in zip(tasks, numbers[0], strict=True):
        task.load(chosen[0])  # what is not there is said before hours of work
    results: list[list[Evaluation]] = []
    for bundle, row in zip(opened, numbers, strict=True):
        extractor = Extractor(bundle, engine=engine, precision=precision, threads=threads)
        embedder = Embedder((extractor,), flip=flip)
        with progress_bars() as notify:
            results.append(
                [
                    evaluate_embedder(embedder, task, notify, numbers=chosen, skip_bad=skip_bad, say=say)
                    for task, chosen in zip(tasks, row, strict=True)
                ]
            )
    _print(results, on)
    if json is not None:
        write_whole(json, msgspec.json.encode([result for row in results for result in row]) + b"\n")


def _dataset(text: str) -> tuple[str, Path]:
    name, equals, root = text.partition("=")
    if not (name and equals and root):
        raise UsageError(f"--on takes NAME=ROOT, e.g. --on market1501=/data/market1501; got '{text}'.")
    return name, Path(root)


def _print(results: Sequence[Sequence[Evaluation]], on: Sequence[str]) -> None:
    names = [text.partition("=")[0] for text in on]
    heads = names if len(set(names)) == len(names) else list(on)  # one dataset from two folders
    rows = [
        [row[0].bundles[0], row[0].trained_on[0], *(f"{percent(one.cmc[0])} / {percent(one.mean_ap)}" for one in row)]
        for row in results
    ]
    print_table("R1 / mAP, per cent", ("bundle", "trained on", *heads), rows)
