"""Rules for a manifest beyond the types of its fields: what a reader relies on, checked before any file is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from reid_edge.manifest import Artifact, EngineName, InputSpec, Manifest, model_hash
from reid_edge.wording import counted

#: Fewest and most files of an artifact.
_FILES: dict[EngineName, tuple[int, int]] = {
    "native": (1, 1),
    "onnxruntime": (1, 64),
    "openvino": (2, 2),
    "tensorrt": (1, 1),
}
#: Type, axes and colours of the input, by the place where it is normalised.
_INPUTS = {"graph": ("uint8", "NHWC", "BGR"), "host": ("float32", "NCHW", "RGB")}
_LONGEST_NAME = 255


def broken_rules(manifest: Manifest) -> list[str]:
    """List what is wrong with a manifest whose fields have the right types; nothing where it can be relied on."""
    return list(_broken(manifest))


def _broken(manifest: Manifest) -> Iterator[str]:
    for entry in manifest.entries():
        if reason := _misplaced(entry.path):
            yield f"names a file {reason}: {entry.path!r}"
    yield from _broken_names(manifest)
    yield from _broken_input(manifest.input)
    for artifact in manifest.artifacts:
        yield from _broken_artifact(artifact)
    expected = model_hash(manifest.model.checkpoint_sha256, manifest.input, manifest.features)
    if manifest.model_hash != expected:
        yield (
            f"model_hash is {manifest.model_hash[:12]}…, and weights, input and norm make {expected[:12]}…: "
            "features would be stored under the name of another model"
        )


def _misplaced(path: str) -> str:
    """Say why a path is none within the bundle; "" for one that is."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        return "outside the bundle"
    if not path.isprintable():
        return "with a character that no name has"
    if any(len(part.encode()) > _LONGEST_NAME for part in pure.parts):
        return "with too long a name"
    return ""


def _broken_names(manifest: Manifest) -> Iterator[str]:
    for name, count in Counter(artifact.name for artifact in manifest.artifacts).items():
        if count > 1:
            yield f"lists {name} {count} times"
    described = {(entry.path, entry.size_bytes, entry.sha256) for entry in manifest.entries()}
    for path, count in Counter(path for path, _size, _sha256 in described).items():
        if count > 1:
            yield f"gives {path!r} {count} different contents"


def _broken_input(spec: InputSpec) -> Iterator[str]:
    found, expected = (spec.dtype, spec.layout, spec.color_order), _INPUTS[spec.normalised_in]
    if found != expected:
        yield f"input normalised in the {spec.normalised_in} is {' '.join(expected)}, not {' '.join(found)}"


def _broken_artifact(artifact: Artifact) -> Iterator[str]:
    fewest, most = _FILES[artifact.engine]
    if not fewest <= len(artifact.files) <= most:
        expected = str(most) if fewest == most else f"{fewest} to {most}"
        yield f"{artifact.name} has {counted(len(artifact.files), 'file')}; expected {expected}"
    if (artifact.plan is None) == (artifact.engine == "tensorrt"):
        yield f"{artifact.name} has {'no' if artifact.plan is None else 'a'} record of a TensorRT plan"
