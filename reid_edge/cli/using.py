"""``reid-edge extract``, ``verify`` and ``doctor``: a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import reid_edge
from reid_edge.cli.options import BundleArgument, EngineOption, ForceOption, PrecisionOption, ThreadsOption
from reid_edge.console import console, print_table, progress_bars
from reid_edge.errors import ReidEdgeError


def extract(
    bundle: BundleArgument,
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images; each image is one crop.")],
    out: Annotated[Path, typer.Option(help="features.npy or features.parquet.")] = Path("features.npy"),
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    force: ForceOption = False,
) -> None:
    """Turn person crops into features."""
    from reid_edge.features import check_feature_file, write_features
    from reid_edge.images import list_images
    from reid_edge.runtime import Extractor
    from reid_edge.runtime.extractor import extract_files

    check_feature_file(out, force=force)
    paths = list_images(inputs)
    extractor = Extractor(bundle, engine=engine, precision=precision, threads=threads)
    with progress_bars() as notify:
        features = extract_files(extractor, paths, notify(f"extracting with {extractor.description}", len(paths)))
    written = write_features(out, [str(path) for path in paths], features, extractor.bundle.manifest.model_hash)
    console.print(f"{features.shape[0]}×{features.shape[1]} float32 in {', '.join(map(str, written))}", soft_wrap=True)


def verify(
    bundle: BundleArgument,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Check a bundle's hashes, and its golden features on every engine of this machine ('auto': all of them)."""
    from reid_edge.bundle import open_bundle
    from reid_edge.runtime.engines import EngineOptions
    from reid_edge.runtime.golden import verify_bundle

    opened = open_bundle(bundle)
    results = verify_bundle(opened, engine, precision, EngineOptions(threads=threads))
    print_table(
        f"{bundle}: {len(opened.manifest.entries())} files as exported",
        ("engine", "result", "detail"),
        [[result.artifact.name, result.outcome, result.detail] for result in results],
    )
    if any(result.outcome == "wrong" for result in results):
        raise ReidEdgeError("a file computes other features here than where it was exported; do not use it here.")
    if not any(result.outcome == "right" for result in results):
        raise ReidEdgeError(
            "no file of this bundle could run on this machine; 'reid-edge doctor' says what to install."
        )


def doctor() -> None:
    """Say which engines work here, and what to install next."""
    from reid_edge.runtime.doctor import examine

    rows = [[finding.subject, finding.found, finding.advice] for finding in examine()]
    print_table(f"reid-edge {reid_edge.__version__}", ("", "found", "advice"), rows)
