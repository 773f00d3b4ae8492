"""``reid-edge inspect``: what a bundle or a checkpoint says of itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_edge.console import BUNDLE_HEADERS, bundle_rows, extra, print_table

if TYPE_CHECKING:
    from reid_edge.bundle import Manifest
    from reid_edge.osnet.checkpoint import Checkpoint


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a .safetensors checkpoint.")],
    json: Annotated[bool, typer.Option("--json", help="Print all that it says, as JSON.")] = False,
) -> None:
    """Print what a bundle holds; of a checkpoint, how it was trained."""
    if path.suffix == ".safetensors" and not path.is_dir():
        _inspect_checkpoint(path, json=json)
    else:
        _inspect_bundle(path, json=json)


def _inspect_bundle(path: Path, *, json: bool) -> None:
    from reid_edge.bundle import MANIFEST, open_bundle

    manifest = open_bundle(path).manifest
    if json:
        sys.stdout.write((path / MANIFEST).read_text(encoding="utf-8"))
        return
    _print_facts(path, _bundle_facts(manifest))
    print_table("files", BUNDLE_HEADERS, bundle_rows(manifest))


def _bundle_facts(manifest: Manifest) -> dict[str, str]:
    calibration = manifest.calibration
    return {
        "model": f"OSNet x{manifest.model.width:g} {manifest.model.variant}".rstrip()
        + f", {manifest.model.parameters:,} parameters",
        "model hash": manifest.model_hash,
        "trained on": manifest.model.dataset,
        "input": f"{manifest.input.size[0]}x{manifest.input.size[1]} {manifest.input.dtype} {manifest.input.layout} "
        f"{manifest.input.color_order}, resized by {manifest.input.resize}, "
        f"normalised in the {manifest.input.normalised_in}",
        "features": f"{manifest.features.dim}, norm {manifest.features.norm}, compare by {manifest.features.distance}",
        "calibration": "none"
        if calibration is None
        else f"{calibration.calibration_crops} {calibration.source} crops ({calibration.note})",
        "exported": f"{manifest.created} by reid-edge {manifest.tools.get('reid-edge', '?')}",
        "timed on": manifest.latency[0].device if manifest.latency else "not timed",
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
