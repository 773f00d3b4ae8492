"""The bundle: a folder that holds one model in every form, and a manifest that says what each file is.

Everything downstream of export reads the manifest; nothing is guessed from a file name.  ``docs/bundle.md`` describes
the folder, ``docs/manifest.schema.json`` is made from the classes below.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.errors import BundleCorruptError, BundleError, BundleVersionError, EngineUnavailableError
from reid_edge.files import write_whole
from reid_edge.tuning_record import Execution, FloatType, Tuning

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

EngineName = Literal["onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8", "tuned"]
Distance = Literal["cosine", "euclidean"]
ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino", "tensorrt")
#: ``ModelSpec.dataset`` of a network that was never trained: what it costs is real, its features are not.
RANDOM_WEIGHTS = "none: random weights"
#: ``tuned``: INT8 and float by layer, as was fastest on one device (:mod:`reid_edge.tuning_record`).
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "tuned")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the model files take.

    Attributes:
        size: Height and width, pixels.
        dtype: ``uint8`` pixels 0–255, or ``float32`` values already normalised.
        layout: ``NHWC`` or ``NCHW``.
        color_order: Channel order of that input.
        resize: Name of the rule that makes a crop this size (:data:`reid_edge.crops.RESIZE_RULE`).
        mean: Per-channel mean, **RGB**, full scale = 1.
        std: Per-channel standard deviation, likewise.
        normalised_in: ``graph``: the files subtract and divide themselves; ``host``: the runtime does, before.
    """

    size: tuple[int, int]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color_order: Literal["BGR", "RGB"]
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    normalised_in: Literal["graph", "host"]


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """What the runtime returns: dimensions, norm that it applies, and the distance to compare with."""

    dim: int
    norm: Literal["l2", "none"] = "l2"
    distance: Distance = "cosine"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network and the checkpoint that it came from; ``variant``: how it differs from the paper's primary model."""

    width: float
    parameters: int
    mult_adds: int
    checkpoint_sha256: str
    dataset: str
    recipe: str
    metrics: dict[str, float] = field(default_factory=dict)
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file: its path within the bundle, size in bytes and sha256."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How closely a file's features follow the checkpoint's on the golden crops.

    Attributes:
        engine: What ran the file, with version.
        cosine_min: Lowest cosine similarity of any row.
        max_abs_diff: Largest absolute difference of any number of the unit-length features.
        batches: Batch sizes tried, rows permuted in each.
    """

    engine: str
    cosine_min: float
    max_abs_diff: float
    batches: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What INT8 does to the ranking, against FP32, on crops that were not used to calibrate.

    Attributes:
        verdict: ``accepted``, or ``rejected`` (kept only because the caller insisted).
        crops: How many crops, and of what kind.
        cosine_mean: Mean cosine similarity of INT8 and FP32 features of the same crop.
        ranking: Mean Spearman correlation of the order in which a crop's neighbours come, INT8 against FP32.
        neighbours: Mean share of a crop's ten nearest neighbours that stay among its ten nearest.
        variance: Variance of the unit features over the crops, INT8 as a fraction of FP32; collapse shows here.
        reasons: Which limits were broken.
    """

    verdict: Literal["accepted", "rejected"]
    crops: str
    cosine_mean: float
    ranking: float
    neighbours: float
    variance: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlanStamp:
    """Where a TensorRT plan came from: it runs there and nowhere else.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: The library's version.
        device: Name of the GPU it was built on, or "" when it was built without one (``tensorrt_rtx`` can).
        compute_capability: e.g. ``8.7``; "" when built without a GPU.
        built_precision: Number of layers by the precision that the engine reports; empty when the engine could not be
            asked, since that takes a GPU.
        batches: Smallest, preferred and largest batch of the optimisation profile.
    """

    library: str
    version: str
    device: str
    compute_capability: str
    built_precision: dict[str, int]
    batches: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One model form: which engine runs it, at which precision, and what is known of it.

    Attributes:
        engine: The engine that loads it.
        precision: What was asked for.
        files: The first is the one to load.
        rewrite: Exact rewrites applied: ``fold``, ``merge``, … (:mod:`reid_edge.osnet.rewrites`); earlier releases
            named blocks too, as ``collapse conv3.0``.
        mult_adds: Of one crop.
        max_batch: Largest batch it takes.
        needs_vnni: INT8 weights use the full range, which saturates on x86 without VNNI.
        parity: Against the checkpoint; None where the file cannot run on the machine that made it.
        verdict: For INT8.
        plan: For TensorRT.
        int8: Parts of the network in INT8, for ``tuned``.
        execution: How the engine is to run it; None: its defaults.
    """

    engine: EngineName
    precision: Precision
    files: Annotated[tuple[FileEntry, ...], msgspec.Meta(min_length=1)]
    rewrite: tuple[str, ...]
    mult_adds: int
    max_batch: Annotated[int, msgspec.Meta(ge=1)]
    needs_vnni: bool = False
    parity: Parity | None = None
    verdict: Verdict | None = None
    plan: PlanStamp | None = None
    int8: tuple[str, ...] = ()
    execution: Execution | None = None

    @property
    def name(self) -> str:
        """``engine/precision``."""
        return f"{self.engine}/{self.precision}"

    @property
    def float_precision(self) -> Literal["fp32", "fp16"] | None:
        """The one float type of a file all in float; None where it holds INT8, or is computed in bfloat16."""
        if self.precision != "tuned":
            return None if self.precision == "int8" else self.precision
        if self.int8:
            return None
        floats: dict[FloatType, Literal["fp32", "fp16"]] = {"f32": "fp32", "f16": "fp16"}
        return floats.get((self.execution or Execution()).float_type)

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(entry.size_bytes for entry in self.files)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What INT8 was calibrated with.

    Attributes:
        source: ``distilled`` (made from the checkpoint, no photographs) or ``crops`` (the caller's).
        calibration_crops: How many calibrated.
        held_out_crops: How many gave the verdict.
        sha256: Of the uint8 pixels of both, in order.
        note: Seed and steps, or the folder's name.
    """

    source: Literal["distilled", "crops"]
    calibration_crops: int
    held_out_crops: int
    sha256: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median time from a frame and boxes to features, milliseconds, on the exporting machine."""

    artifact: str
    crops: int
    median_ms: float
    device: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of a bundle.

    Attributes:
        format_version: Of this manifest.
        model_hash: Names the function from crop to feature; features of two hashes must not be compared.
        artifacts: Every model form.
        golden: ``.npz`` with ``crops`` (G×H×W×3 uint8, BGR) and ``features`` (G×512 float32, the checkpoint's, not
            normalised).
        tuning: How the tuned file was chosen, if there is one.
    """

    format_version: int = FORMAT_VERSION
    model_hash: str
    created: str
    input: InputSpec
    features: FeatureSpec
    model: ModelSpec
    artifacts: tuple[Artifact, ...]
    golden: FileEntry
    calibration: Calibration | None = None
    latency: tuple[Latency, ...] = ()
    tuning: Tuning | None = None
    tools: dict[str, str] = field(default_factory=dict)

    def entries(self) -> list[FileEntry]:
        """Every file that the manifest lists."""
        return [self.golden, *(entry for artifact in self.artifacts for entry in artifact.files)]


def model_hash(checkpoint_sha256: str, spec: InputSpec, features: FeatureSpec) -> str:
    """sha256 over what decides a feature: weights, input size, resize rule, mean, std, norm.  Precision is no part."""
    decisive = [checkpoint_sha256, spec.size, spec.resize, spec.mean, spec.std, features.norm]
    return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: Manifest

    def artifact(self, engine: EngineName, precision: Precision) -> Artifact:
        """Find one model form.

        Raises:
            EngineUnavailableError: The bundle does not hold it.
        """
        for artifact in self.manifest.artifacts:
            if (artifact.engine, artifact.precision) == (engine, precision):
                return artifact
        held = ", ".join(artifact.name for artifact in self.manifest.artifacts)
        raise EngineUnavailableError(f"{self.path} holds no {engine}/{precision}; it holds {held}.")

    def checked_path(self, entry: FileEntry) -> Path:
        """Absolute path of a file, once its bytes are known to be those of the manifest.

        Raises:
            BundleCorruptError: Missing or changed.
        """
        path = self.path / entry.path
        try:
            found = sha256_of(path)
        except OSError as error:
            raise BundleCorruptError(
                f"{path} is missing or unreadable ({error.strerror}); copy the bundle again or export it again."
            ) from error
        if found != entry.sha256:
            raise BundleCorruptError(
                f"{path} is not the file that was exported: sha256 {found[:12]}…, the manifest says "
                f"{entry.sha256[:12]}…; copy the bundle again or export it again."
            )
        return path

    def golden(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Golden crops, G×H×W×3 uint8 BGR, and the checkpoint's features of them, G×512 float32, not normalised.

        Raises:
            BundleCorruptError: Missing or changed.
        """
        with np.load(self.checked_path(self.manifest.golden)) as stored:
            return stored["crops"], stored["features"]


def open_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest; each model file is checked when it is used.

    Raises:
        BundleError: No manifest there.
        BundleVersionError: Written by a later release.
        BundleCorruptError: The manifest cannot be read as one.
    """
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}. Make one with: reid-edge export --out {path}")
    text = manifest_path.read_bytes()
    try:
        version = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["format_version"]
        newer = int(bytes(version)) > FORMAT_VERSION
    except (msgspec.DecodeError, KeyError, ValueError) as error:  # ValueError: also bytes that are not UTF-8
        raise BundleCorruptError(f"{manifest_path} is not a manifest: {error}; export the bundle again.") from error
    if newer:
        raise BundleVersionError(
            f"{path} has bundle format {int(bytes(version))}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleCorruptError(f"{manifest_path}: {error}; export the bundle again.") from error
    for entry in manifest.entries():
        if PurePosixPath(entry.path).is_absolute() or ".." in PurePosixPath(entry.path).parts:
            raise BundleCorruptError(f"{manifest_path} names a file outside the bundle: {entry.path}.")
    return Bundle(path, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a bundle's manifest, whole or not at all.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_whole(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def with_artifact(manifest: Manifest, artifact: Artifact) -> Manifest:
    """The manifest with an artifact added, in place of one of the same engine and precision."""
    kept = tuple(other for other in manifest.artifacts if other.name != artifact.name)
    return replace(manifest, artifacts=(*kept, artifact))


def file_entry(folder: Path, relative: str) -> FileEntry:
    """Describe a file that lies in a bundle's folder."""
    path = folder / relative
    return FileEntry(path=relative, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path) -> str:
    """sha256 of a file, hexadecimal.

    Raises:
        OSError: Missing or unreadable.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
