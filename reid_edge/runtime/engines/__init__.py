"""Engines, one library in each file; this file chooses among them and loads them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from reid_edge.bundle import Bundle
from reid_edge.errors import BundleVersionError, EngineError, EngineUnavailableError, MissingExtraError, UsageError
from reid_edge.manifest import ENGINES, PRECISIONS, Artifact, EngineChoice, EngineName, Precision, PrecisionChoice
from reid_edge.runtime.agreement import require_agreement
from reid_edge.runtime.engines.base import Batch, CropEngine, Engine, EngineOptions, LayerTimer, out_of_memory
from reid_edge.runtime.engines.hardware import device_class_of
from reid_edge.runtime.engines.native import NativeEngine
from reid_edge.runtime.engines.onnxruntime import OnnxRuntimeEngine
from reid_edge.runtime.engines.onnxruntime_tensorrt import OnnxRuntimeTensorRTEngine, is_tensorrt
from reid_edge.runtime.engines.openvino import OpenVINOEngine
from reid_edge.runtime.engines.tensorrt import TensorRTEngine
from reid_edge.system.cpu import saturates_int8

__all__ = [
    "AUTO_ORDER",
    "Batch",
    "CropEngine",
    "Engine",
    "EngineOptions",
    "LayerTimer",
    "choose_engine",
    "load_engine",
    "out_of_memory",
]

_logger = logging.getLogger(__name__)

#: Engines and their precisions in the order in which ``auto`` tries them: a GPU plan is built for this very device; on
#: a CPU our own kernels are the fastest, then OpenVINO.  INT8 is missing: it may rank worse, so it has to be chosen,
#: after a benchmark on the device.  A tuned file was chosen so: on its class of device ``auto`` takes it first.
_AUTO_PRECISION: dict[EngineName, tuple[Precision, ...]] = {
    "tensorrt": ("fp16", "fp32"),
    "native": ("fp32",),
    "openvino": ("fp32", "fp16"),
    "onnxruntime": ("fp32", "fp16"),
}
AUTO_ORDER: tuple[EngineName, ...] = tuple(_AUTO_PRECISION)


def load_engine(bundle: Bundle, artifact: Artifact, options: EngineOptions) -> Engine:
    """Read an artifact's files, check them, and load what was read.

    Raises:
        BundleCorruptError: A file is missing or changed.
        MissingExtraError: The engine's package is not installed.
        EngineUnavailableError: The engine cannot run here.
        PlanMismatchError: A plan for another device or version.
        EngineError: No memory, or the engine's own error.
    """
    if artifact.needs_vnni and artifact.engine in ("openvino", "onnxruntime") and saturates_int8():
        raise EngineUnavailableError(
            f"{artifact.name} was exported for CPUs with VNNI; on this one its sums would overflow and the features "
            "would be wrong. Export again with: --target-cpu any"
        )
    try:
        files = {entry.path: bundle.read(entry) for entry in artifact.files}
        match artifact.engine:
            case "native":
                return NativeEngine(files, artifact, options)
            case "openvino":
                return OpenVINOEngine(files, artifact, options)
            case "onnxruntime":
                kind = OnnxRuntimeTensorRTEngine if is_tensorrt(options.device) else OnnxRuntimeEngine
                return kind(files, artifact, options)
            case "tensorrt":
                return TensorRTEngine(files, artifact, options)
    except MemoryError as error:
        raise out_of_memory(artifact.name) from error


def choose_engine(
    bundle: Bundle,
    engine: EngineChoice,
    precision: PrecisionChoice,
    options: EngineOptions,
    *,
    on_refusal: Callable[[Artifact, Exception], object] = lambda _artifact, _error: None,
) -> tuple[Artifact, Engine, float | None]:
    """Load the artifact that was asked for, or with ``auto`` the first that this device can run.

    Args:
        bundle: Has the artifacts.
        engine: Of the artifact.
        precision: Of the artifact.
        options: Options of the engines.
        on_refusal: With ``auto``, called for each artifact that would have been preferred, with the error that says
            why it cannot run here.

    Returns:
        The artifact, the engine, and its lowest cosine similarity to the golden features, where they were compared.

    Raises:
        UsageError: There is no engine or precision of that name.
        EngineUnavailableError: No candidate can run here; the message says why for each.
        ReidEdgeError: With an engine named, that engine's own error.
    """
    if engine not in ("auto", *ENGINES) or precision not in ("auto", *PRECISIONS):
        raise UsageError(
            f"no engine '{engine}' with precision '{precision}'; engines: {', '.join(ENGINES)}; "
            f"precisions: {', '.join(PRECISIONS)}; or auto."
        )
    reasons = []
    for artifact in _candidates(bundle, engine, precision, options.device):
        try:
            loaded = load_engine(bundle, artifact, options)
            return artifact, loaded, _agreement(loaded, bundle, artifact) if engine == "auto" else None
        except (EngineError, MissingExtraError, BundleVersionError) as error:
            if engine != "auto":
                raise
            level = logging.INFO if isinstance(error, MissingExtraError) else logging.WARNING
            _logger.log(level, "%s is not used: %s", artifact.name, error)
            reasons.append(f"  {artifact.name}: {error}")
            on_refusal(artifact, error)
    raise EngineUnavailableError(
        f"no engine on this device can run {bundle.path}:\n" + "\n".join(reasons) + "\nSee also: reid-edge doctor"
    )


def _agreement(engine: Engine, bundle: Bundle, artifact: Artifact) -> float | None:
    """Compare the native engine's features with the golden ones, since nobody else uses its kernels.

    Returns:
        The lowest cosine similarity; None for other engines.

    Raises:
        EngineUnavailableError: They differ, or other engines may be faster here.
        EngineError: No memory.
    """
    if not isinstance(engine, NativeEngine):
        return None
    engine.require_own_kernels()
    try:
        return require_agreement(engine.infer, bundle, artifact)
    except MemoryError as error:
        raise out_of_memory(artifact.name) from error


def _candidates(bundle: Bundle, engine: EngineChoice, precision: PrecisionChoice, device: str) -> list[Artifact]:
    """List the bundle's artifacts that fit, the one to try first in front.

    Other devices than the CPU compute in float16 by themselves, so fp16 comes first there.  INT8 by any engine ends
    with the native engine's float32: where the CPU has no instructions for its INT8, no other engine may be there.

    Raises:
        EngineUnavailableError: The bundle holds none.
    """
    held = {(artifact.engine, artifact.precision): artifact for artifact in bundle.manifest.artifacts}
    tuned = _tuned_for(bundle, device) if precision == "auto" else []
    plain = [
        held[name, wanted]
        for name in (AUTO_ORDER if engine == "auto" else (engine,))
        for wanted in (_order(_AUTO_PRECISION[name], on_cpu=device == "CPU") if precision == "auto" else (precision,))
        if (name, wanted) in held
    ]
    if engine == "auto" and precision == "int8" and {("native", "int8"), ("native", "fp32")} <= held.keys():
        plain.append(held["native", "fp32"])
    found = [artifact for artifact in tuned if engine in ("auto", artifact.engine)] + plain
    if not found:
        names = ", ".join(artifact.name for artifact in bundle.manifest.artifacts)
        raise EngineUnavailableError(f"{bundle.path} holds no {engine}/{precision}; it holds {names}.")
    return found


def _order(precisions: tuple[Precision, ...], *, on_cpu: bool) -> tuple[Precision, ...]:
    return precisions if on_cpu else tuple(sorted(precisions, key=lambda one: one != "fp16"))


def _tuned_for(bundle: Bundle, device: str) -> list[Artifact]:
    """Return the bundle's tuned artifacts where this is their class of device; else log a warning.

    The first of them was tuned; a plan's ONNX file comes after it.
    """
    tuning = bundle.manifest.tuning
    tuned = [artifact for artifact in bundle.manifest.artifacts if artifact.precision == "tuned"]
    if tuning is None or not tuned:
        return []
    if differences := tuning.device.differences(device_class_of(tuned[0].engine, device)):
        _logger.warning(
            "%s was tuned on another class of device (%s): its tuned file may be slower here than the plain ones. "
            "Tune on this device: reid-edge tune%s",
            bundle.path,
            "; ".join(differences),
            "" if device == "CPU" else f" --device {device}",
        )
        return []
    return tuned
