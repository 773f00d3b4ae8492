"""The manifest of a bundle: records of its input, features, model, files, verdicts, calibration and figures.

``docs/manifest.schema.json`` is made from these classes.  To add a field, see ``docs/development.md``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import msgspec

from reid_edge.tuning_record import Execution, FloatType, Tuning

FORMAT_VERSION = 1
#: More than any file of a bundle has; a plan of the widest network takes a hundredth.
MAX_FILE_BYTES = 1 << 30
#: More crops than any exporter makes a file for.
MAX_BATCH = 4096

EngineName = Literal["native", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8", "tuned"]
EngineChoice = Literal["auto", EngineName]
PrecisionChoice = Literal["auto", Precision]
Distance = Literal["cosine", "euclidean"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Scale = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Cosine = Annotated[float, msgspec.Meta(ge=-1, le=1)]
ENGINES: tuple[EngineName, ...] = ("native", "onnxruntime", "openvino", "tensorrt")
#: ``ModelSpec.dataset`` of a network that was never trained: its times are real, its features mean nothing.
RANDOM_WEIGHTS = "none: random weights"
#: ``tuned``: rewritten and quantized as was fastest on one device (:mod:`reid_edge.tuning_record`).
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "tuned")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Input of the model files.

    Attributes:
        size: Height and width, pixels.
        dtype: ``uint8`` pixels 0–255, or ``float32`` values already normalised.
        layout: ``NHWC`` or ``NCHW``.
        color_order: Channel order of that input.
        resize: Name of the rule that resizes a crop to ``size`` (:data:`reid_edge.crops.RESIZE_RULE`).
        mean: Per-channel mean, **RGB**, full scale = 1.
        std: Per-channel standard deviation, likewise.
        normalised_in: ``graph``: the files subtract and divide themselves; ``host``: the runtime does so before.
    """

    size: tuple[Pixels, Pixels]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color_order: Literal["BGR", "RGB"]
    resize: str
    mean: tuple[float, float, float]
    std: tuple[Scale, Scale, Scale]
    normalised_in: Literal["graph", "host"]


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Features that the runtime returns: dimensions, norm that it applies, and the distance to compare with."""

    dim: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    norm: Literal["l2", "none"] = "l2"
    distance: Distance = "cosine"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network and the checkpoint that it came from.

    ``variant``: how it differs from the paper's primary model; ``adapted``: to which places it was adapted, with what.
    """

    width: Scale
    parameters: Count
    mult_adds: Count
    checkpoint_sha256: Sha256
    dataset: str
    recipe: str
    metrics: dict[str, float] = field(default_factory=dict)
    variant: str = ""
    adapted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file: its path within the bundle, size in bytes and sha256."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of a file's features of the golden crops with the checkpoint's.

    Attributes:
        engine: Library, version and device that ran the file.
        cosine_min: Lowest cosine similarity of any row.
        max_abs_diff: Largest absolute difference of any number of the unit-length features.
        batches: Batch sizes tried, rows permuted in each.
    """

    engine: str
    cosine_min: Cosine
    max_abs_diff: float
    batches: tuple[Count, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Change of the ranking from FP32 to INT8, on crops that were not used to calibrate.

    Attributes:
        verdict: ``accepted``, or ``rejected`` (and kept with ``--keep-rejected``).
        crops: Number and kind of the crops.
        cosine_mean: Mean cosine similarity of INT8 and FP32 features of the same crop.
        ranking: Mean Spearman correlation of the order in which a crop's neighbours come, INT8 against FP32.
        neighbours: Mean share of a crop's ten nearest neighbours that stay among its ten nearest.
        variance: Variance of the unit features over the crops, INT8 as a fraction of FP32; near 0 where they collapse.
        reasons: Limits that were broken.
    """

    verdict: Literal["accepted", "rejected"]
    crops: str
    cosine_mean: Cosine
    ranking: float
    neighbours: float
    variance: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlanStamp:
    """Origin of a TensorRT plan, which runs on that device with that library only.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: The library's version.
        device: Name of the GPU that it was built on, or "" when it was built without one (``tensorrt_rtx`` can).
        compute_capability: e.g. ``8.7``; "" when built without a GPU.
        built_precision: Number of layers by the precision that the engine reports; empty when the engine could not be
            asked, since that takes a GPU.
        batches: Smallest, preferred and largest batch of the optimisation profile.
        multiprocessors: Number of the GPU's multiprocessors, which tells the modules of a Jetson family apart; 0 in
            plans of earlier releases.
        memory_bytes: Memory of the GPU, a Jetson's whole memory; 0 in plans of earlier releases.
    """

    library: str
    version: str
    device: str
    compute_capability: str
    built_precision: dict[str, Count]
    batches: tuple[Count, Count, Count]
    multiprocessors: Count = 0
    memory_bytes: Count = 0


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Files of one engine and precision, and the facts that are known of them.

    Attributes:
        engine: The engine that loads it.
        precision: Precision asked for; TensorRT may choose another for single layers.
        files: The first is the one to load. OpenVINO's second holds the weights; ONNX's others hold those that the
            first names (external data). An engine reads no file that is not listed.
        rewrite: Exact rewrites applied: ``fold``, ``merge``, … (:mod:`reid_edge.osnet.rewrites`); earlier releases
            named blocks too, as ``collapse conv3.0``.
        mult_adds: Multiply-adds of one crop.
        max_batch: Largest batch that the files take.
        needs_vnni: INT8 weights use the full range, which saturates on x86 without VNNI.
        parity: Against the checkpoint; None where the file cannot run on the machine that made it.
        verdict: Verdict on INT8; None for other precisions.
        plan: Origin of a TensorRT plan; None for other engines.
        int8: Parts of the network in INT8, for ``tuned``.
        execution: Threads, streams and float type to run it with; None: the engine's defaults.
    """

    engine: EngineName
    precision: Precision
    files: Annotated[tuple[FileEntry, ...], msgspec.Meta(min_length=1)]
    rewrite: tuple[str, ...]
    mult_adds: Count
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)]
    needs_vnni: bool = False
    parity: Parity | None = None
    verdict: Verdict | None = None
    plan: PlanStamp | None = None
    int8: tuple[str, ...] = ()
    execution: Execution | None = None

    @property
    def name(self) -> str:
        """Name the artifact: ``engine/precision``."""
        return f"{self.engine}/{self.precision}"

    @property
    def float_precision(self) -> Literal["fp32", "fp16"] | None:
        """Return the one float type of a file all in float; None where it holds INT8 or is computed in bfloat16."""
        if self.precision != "tuned":
            return None if self.precision == "int8" else self.precision
        if self.int8:
            return None
        floats: dict[FloatType, Literal["fp32", "fp16"]] = {"f32": "fp32", "f16": "fp16"}
        return floats.get((self.execution or Execution()).float_type)

    @property
    def size_bytes(self) -> int:
        """Return the size of all its files, bytes."""
        return sum(entry.size_bytes for entry in self.files)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Crops that INT8 was calibrated with.

    Attributes:
        source: ``distilled`` (made from the checkpoint, no photographs) or ``crops`` (the caller's).
        calibration_crops: Number of crops that calibrated.
        held_out_crops: Number of crops that gave the verdict.
        sha256: Of the uint8 pixels of both, in order.
        note: Seed and steps, or the folder's name.
    """

    source: Literal["distilled", "crops"]
    calibration_crops: Count
    held_out_crops: Count
    sha256: Sha256
    note: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median time from a frame and boxes to features, milliseconds, on the exporting machine."""

    artifact: str
    crops: Count
    median_ms: float
    device: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a bundle.

    Attributes:
        format_version: Format of this manifest; readers refuse one above their own.
        model_hash: Names the function from crop to feature; features of two hashes must not be compared.
        artifacts: One for each engine and precision.
        golden: ``.npz`` with ``crops`` (G×H×W×3 uint8, BGR) and ``features`` (G×512 float32, the checkpoint's, not
            normalised).
        tuning: Record of the choice of the tuned file; None without one.
    """

    format_version: Annotated[int, msgspec.Meta(ge=1)] = FORMAT_VERSION
    model_hash: Sha256
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
        """List every file that the manifest names."""
        return [self.golden, *(entry for artifact in self.artifacts for entry in artifact.files)]


def model_hash(checkpoint_sha256: str, spec: InputSpec, features: FeatureSpec) -> str:
    """Return the sha256 of all that decides a feature but precision: features of two hashes must not be compared.

    Args:
        checkpoint_sha256: Of the weights.
        spec: Gives input size, resize rule, mean and std.
        features: Gives the norm.
    """
    decisive = [checkpoint_sha256, spec.size, spec.resize, spec.mean, spec.std, features.norm]
    return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()


def with_artifact(manifest: Manifest, artifact: Artifact) -> Manifest:
    """Return the manifest with an artifact added, in place of one of the same engine and precision."""
    kept = tuple(other for other in manifest.artifacts if other.name != artifact.name)
    return replace(manifest, artifacts=(*kept, artifact))
