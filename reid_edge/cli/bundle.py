"""``reid-edge doctor``, ``inspect``, ``verify`` and ``extract``: this device, and a bundle on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import reid_edge
from reid_edge.cli.shared_options import (
    BundleArgument,
    DeviceOption,
    EngineOption,
    ForceOption,
    PrecisionOption,
    SkipBadOption,
    ThreadsOption,
    TrustedKeyOption,
)
from reid_edge.console import console, extra, print_table, progress_bars, say
from reid_edge.errors import ReidEdgeError, UsageError
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.manifest import Artifact, Manifest, PrecisionChoice
    from reid_edge.osnet.checkpoint import Checkpoint

#: Headers of :func:`bundle_rows`.
BUNDLE_HEADERS = ("file", "size", "against the checkpoint", "mult-adds", "1 crop", "8 crops")


def doctor() -> None:
    """List the engines that work on this device, and what to install for the others."""
    from reid_edge.runtime.doctor import examine

    rows = [[finding.subject, finding.found, finding.advice] for finding in examine()]
    print_table(f"reid-edge {reid_edge.__version__}", ("", "found", "advice"), rows)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a .safetensors checkpoint.")],
    json: Annotated[bool, typer.Option("--json", help="Print the whole manifest or all metadata, as JSON.")] = False,
) -> None:
    """Print the contents of a bundle, or how a checkpoint was trained."""
    if path.suffix == ".safetensors" and not path.is_dir():
        _inspect_checkpoint(path, json=json)
    else:
        _inspect_bundle(path, json=json)


def verify(
    bundle: BundleArgument,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    device: DeviceOption = "CPU",
    features: Annotated[
        Path | None,
        typer.Option(
            help="Features that another device computed from the check crops of BUNDLE (a bundle, or a folder of "
            "'export --for'): .npy, or the folder that qnn-net-run wrote. With --precision, the one it computes in."
        ),
    ] = None,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Check a bundle's hashes, and the features of its golden crops on each engine of this device."""
    if features is not None:
        _verify_features(bundle, features, precision, trusted_key or ())
        return
    from reid_edge.bundle import open_bundle
    from reid_edge.runtime.engines import EngineOptions
    from reid_edge.runtime.golden import verify_bundle

    opened = open_bundle(bundle, trusted_keys=trusted_key or ())
    results = verify_bundle(opened, engine, precision, EngineOptions(threads=threads, device=device))
    print_table(
        f"{bundle}: {counted(len(opened.manifest.entries()), 'file')} as exported",
        ("engine", "result", "detail"),
        [[result.artifact.name, result.outcome, result.detail] for result in results],
    )
    if any(result.outcome == "wrong" for result in results):
        raise ReidEdgeError(
            "a file computes other features here than where it was exported; do not use it here: export again, "
            "or choose another --engine or --precision."
        )
    if not any(result.outcome == "right" for result in results):
        raise ReidEdgeError("no file of this bundle could run on this device; 'reid-edge doctor' says what to install.")


def _verify_features(folder: Path, features: Path, precision: PrecisionChoice, trusted_keys: Sequence[str]) -> None:
    from reid_edge.runtime.device_features import verify_features

    if precision not in ("fp32", "fp16", "int8"):
        raise UsageError("--features needs --precision fp32, fp16 or int8: what the device computes in.")
    verdict = verify_features(folder, features, precision, trusted_keys=tuple(trusted_keys))
    outcome = "wrong" if verdict.reasons else "right"
    print_table(f"{features}", ("precision", "result", "detail"), [[precision, outcome, verdict.detail]])
    if verdict.reasons:
        raise ReidEdgeError(
            f"the device computes other features than the checkpoint: {'; '.join(verdict.reasons)}. Do not use it: "
            "look at the order of the crops, the colours and the input's scale, or calibrate with other crops."
        )


def extract(
    bundle: BundleArgument,
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images; each image is one crop.")],
    out: Annotated[
        Path,
        typer.Option(help="Output: .npy (names go to a .sources.txt beside it), .csv or .parquet."),
    ] = Path("features.npy"),
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    device: DeviceOption = "CPU",
    trusted_key: TrustedKeyOption = None,
    skip_bad: SkipBadOption = False,
    force: ForceOption = False,
) -> None:
    """Compute the features of person crops, and write them with the names of the images."""
    from reid_edge.features import check_feature_file, write_features
    from reid_edge.images import left_out, list_images
    from reid_edge.runtime import Extractor
    from reid_edge.runtime.extractor import extract_files
    from reid_edge.runtime.golden import check_extractor

    check_feature_file(out, force=force)
    paths = list_images(inputs)
    extractor = Extractor(
        bundle, engine=engine, precision=precision, threads=threads, device=device, trusted_keys=trusted_key or ()
    )
    if extractor.on_other_device:
        check_extractor(extractor)
    with progress_bars() as notify:
        on_block = notify(f"extracting with {extractor.description}", len(paths))
        extracted = extract_files(extractor, paths, on_block, skip_bad=skip_bad)
    if extracted.unreadable:
        say(left_out(extracted.unreadable, len(paths)))
    features = extracted.features
    sources = [str(path) for path in extracted.paths]
    written = write_features(out, sources, features, extractor.bundle.manifest.model_hash)
    console.print(f"{features.shape[0]}×{features.shape[1]} float32 in {', '.join(map(str, written))}", soft_wrap=True)


def bundle_rows(manifest: Manifest) -> list[list[str]]:
    """Return the table of a bundle's files: file, size, parity or verdict, mult-adds, latency of 1 and of 8 crops."""
    timed = {(entry.artifact, entry.crops): entry.median_ms for entry in manifest.latency}
    return [
        [
            artifact.files[0].path,
            f"{artifact.size_bytes / 1e6:.2f} MB",
            _judgement(artifact),
            f"{artifact.mult_adds / 1e6:.1f}M",
            *(f"{timed[artifact.name, crops]:.2f} ms" if (artifact.name, crops) in timed else "–" for crops in (1, 8)),
        ]
        for artifact in manifest.artifacts
    ]


def _inspect_bundle(path: Path, *, json: bool) -> None:
    from reid_edge.bundle import MANIFEST, open_bundle

    bundle = open_bundle(path)
    manifest = bundle.manifest
    if json:
        sys.stdout.write((bundle.path / MANIFEST).read_text(encoding="utf-8"))
        return
    signature = "there is one: reid-edge bundle verify BUNDLE --key KEY.pub" if bundle.is_signed else "none"
    _print_facts(path, {**_bundle_facts(manifest), "signature": signature})
    print_table("files", BUNDLE_HEADERS, bundle_rows(manifest))


def _bundle_facts(manifest: Manifest) -> dict[str, str]:
    calibration = manifest.calibration
    return {
        "model": f"OSNet x{manifest.model.width:g} {manifest.model.variant}".rstrip()
        + f", {manifest.model.parameters:,} parameters",
        "model hash": manifest.model_hash,
        "trained on": manifest.model.dataset,
        "adapted": "; ".join(manifest.model.adapted) or "no",
        "input": f"{manifest.input.size[0]}x{manifest.input.size[1]} {manifest.input.dtype} {manifest.input.layout} "
        f"{manifest.input.color_order}, resized by {manifest.input.resize}, "
        f"normalised in the {manifest.input.normalised_in}",
        "features": f"{manifest.features.dim}, norm {manifest.features.norm}, compare by {manifest.features.distance}",
        "calibration": "none"
        if calibration is None
        else f"{calibration.calibration_crops} {calibration.source} crops ({calibration.note})",
        "exported": f"{manifest.created} by reid-edge {manifest.tools.get('reid-edge', '?')}",
        "timed on": manifest.latency[0].device if manifest.latency else "not timed",
        "tuned for": str(manifest.tuning.device) if manifest.tuning else "not tuned",
    }


def _inspect_checkpoint(path: Path, *, json: bool) -> None:
    with extra("export", "reading a checkpoint"):
        import msgspec

        from reid_edge.osnet.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(checkpoint.info)).decode() + "\n")
        return
    _print_facts(path, _checkpoint_facts(checkpoint))


def _checkpoint_facts(checkpoint: Checkpoint) -> dict[str, str]:
    info, head = checkpoint.info, checkpoint.head
    return {
        "model": f"OSNet x{info.width:g} {info.variant}".rstrip(),
        "sha256 of the weights": checkpoint.sha256,
        "input": f"{info.size[0]}x{info.size[1]} {info.color_order}, mean {_shown(info.mean)}, std {_shown(info.std)}",
        "trained on": info.dataset,
        "adapted": "; ".join(map(str, info.adaptations)) or "no",
        "recipe": f"{info.recipe}; --json prints its settings" if info.training else info.recipe,
        "figures": ", ".join(f"{name} {100 * value:.2f}" for name, value in info.metrics.items()) or "none",
        "classifier": "none" if head is None else f"{len(head.names)} {head.kind} outputs",
        "imported from": info.source or "nothing: trained by reid-edge",
        "made by": ", ".join(f"{tool} {version}" for tool, version in info.tools.items()) or "unknown",
        "code": info.code_commit,
    }


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _print_facts(path: Path, facts: dict[str, str]) -> None:
    print_table(str(path), ("", ""), [list(item) for item in facts.items()])


def _judgement(artifact: Artifact) -> str:
    if artifact.verdict is not None:
        return f"{artifact.verdict.verdict}: ranking {artifact.verdict.ranking:.3f}"
    if artifact.parity is not None:
        return f"cosine ≥ {_round_down(artifact.parity.cosine_min)}"
    return "not run: no GPU here"


def _round_down(cosine: float) -> str:
    return f"{min(int(cosine * 1e6) / 1e6, 0.999999):.6f}"
