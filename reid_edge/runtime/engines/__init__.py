"""One file per engine; this one chooses among them."""

from __future__ import annotations

import logging
from typing import Literal

from reid_edge.bundle import ENGINES, PRECISIONS, Artifact, Bundle, EngineName, Precision
from reid_edge.errors import EngineError, EngineUnavailableError, MissingExtraError
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.engines.base import Batch, Engine, EngineOptions, Features
from reid_edge.runtime.engines.onnxruntime import OnnxRuntimeEngine
from reid_edge.runtime.engines.openvino import OpenVINOEngine
from reid_edge.runtime.engines.tensorrt import TensorRTEngine, find_gpu
from reid_edge.system.cpu import saturates_int8

__all__ = ["AUTO_ORDER", "Batch", "Engine", "EngineOptions", "Features", "choose_engine", "load_engine"]

_logger = logging.getLogger(__name__)

#: ``auto`` takes the first that works: a GPU plan is built for this very device, OpenVINO is the faster on a CPU.
AUTO_ORDER: tuple[EngineName, ...] = ("tensorrt", "openvino", "onnxruntime")
#: ``auto`` precision: floats are never worse; INT8 is a choice that a benchmark on the device should make.  A tuned
#: file is the fruit of one: ``auto`` takes it first, on the class of device that it was tuned on.
_AUTO_PRECISION: dict[EngineName, tuple[Precision, ...]] = {
    "tensorrt": ("fp16", "fp32"),
    "openvino": ("fp32", "fp16"),
    "onnxruntime": ("fp32", "fp16"),
}


def load_engine(bundle: Bundle, artifact: Artifact, options: EngineOptions) -> Engine:
    """Check an artifact's files and load it.

    Raises:
        BundleCorruptError: A file is missing or changed.
        MissingExtraError: The engine's package is not installed.
        EngineUnavailableError: The engine cannot run here.
        PlanMismatchError: A plan for another device or version.
    """
    if artifact.needs_vnni and artifact.engine != "tensorrt" and saturates_int8():
        raise EngineUnavailableError(
            f"{artifact.name} was exported for CPUs with VNNI; on this one its sums would overflow and the features "
            "would be wrong. Export again with: --target-cpu any"
        )
    path, *_companions = [bundle.checked_path(entry) for entry in artifact.files]
    match artifact.engine:
        case "openvino":
            return OpenVINOEngine(path, artifact, options)
        case "onnxruntime":
            return OnnxRuntimeEngine(path, artifact, options)
        case "tensorrt":
            return TensorRTEngine(path, artifact, options)


def choose_engine(
    bundle: Bundle,
    engine: EngineName | Literal["auto"],
    precision: Precision | Literal["auto"],
    options: EngineOptions,
) -> tuple[Artifact, Engine]:
    """Load what was asked for, or with ``auto`` the first that this machine can run.

    Raises:
        EngineUnavailableError: Nothing fits; says why for each candidate.
        ReidEdgeError: With an engine named, that engine's own error.
    """
    if engine not in ("auto", *ENGINES) or precision not in ("auto", *PRECISIONS):
        raise EngineUnavailableError(
            f"no engine '{engine}' with precision '{precision}'; engines: {', '.join(ENGINES)}; "
            f"precisions: {', '.join(PRECISIONS)}; or auto."
        )
    candidates = [
        (artifact.engine, artifact.precision)
        for artifact in (_tuned_for_here(bundle) if precision == "auto" else [])
        if engine in ("auto", artifact.engine)
    ] + [
        (name, wanted)
        for name in (AUTO_ORDER if engine == "auto" else (engine,))
        for wanted in (_AUTO_PRECISION[name] if precision == "auto" else (precision,))
        if any((held.engine, held.precision) == (name, wanted) for held in bundle.manifest.artifacts)
    ]
    if not candidates:
        held_names = ", ".join(artifact.name for artifact in bundle.manifest.artifacts)
        raise EngineUnavailableError(f"{bundle.path} holds no {engine}/{precision}; it holds {held_names}.")
    reasons = []
    for name, wanted in candidates:
        artifact = bundle.artifact(name, wanted)
        try:
            return artifact, load_engine(bundle, artifact, options)
        except (EngineError, MissingExtraError) as error:
            if engine != "auto":
                raise
            reasons.append(f"  {artifact.name}: {error}")
    raise EngineUnavailableError(
        f"no engine on this machine can run {bundle.path}:\n" + "\n".join(reasons) + "\nSee also: reid-edge doctor"
    )


def _tuned_for_here(bundle: Bundle) -> list[Artifact]:
    """The bundle's tuned files, if this is the class of device that they were tuned on; else a warning."""
    tuning = bundle.manifest.tuning
    if tuning is None:
        return []
    gpu = find_gpu() if tuning.device.gpu else None
    if differences := tuning.device.differences(current_device_class(gpu.name if gpu else "")):
        _logger.warning(
            "%s was tuned on another class of device (%s): its tuned file may be slower here than the plain ones. "
            "Tune on this device: reid-edge tune",
            bundle.path,
            "; ".join(differences),
        )
        return []
    return [artifact for artifact in bundle.manifest.artifacts if artifact.precision == "tuned"]
