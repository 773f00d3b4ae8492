"""Export a checkpoint as a bundle of model files, each checked against the checkpoint."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import reid_edge
from reid_edge.benchmark.latency import measure
from reid_edge.benchmark.onnx_complexity import onnx_mult_adds
from reid_edge.bundle import Bundle, file_entry, open_bundle, write_manifest
from reid_edge.crops import RESIZE_RULE
from reid_edge.export.calibration import CalibrationSet, calibration_set
from reid_edge.export.conversion import quantize_onnx, quantize_openvino, write_ir
from reid_edge.export.native import int8_plan_of_onnx, native_precisions, plan_of_onnx
from reid_edge.export.onnx import Deployable, InputFormat, export_onnx
from reid_edge.export.reference import make_reference
from reid_edge.export.staging import staged_folder
from reid_edge.export.tensorrt import build_tensorrt, plan_precisions
from reid_edge.files import write_whole
from reid_edge.manifest import (
    Artifact,
    EngineName,
    FeatureSpec,
    InputSpec,
    Latency,
    Manifest,
    ModelSpec,
    Precision,
    model_hash,
    with_artifact,
)
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.osnet.complexity import complexity
from reid_edge.osnet.folding import fold
from reid_edge.progress import Notify, silent
from reid_edge.runtime.engines import Batch
from reid_edge.types import Size

Format = Literal["onnx", "openvino", "native", "tensorrt"]
TargetCpu = Literal["any", "vnni"]

GOLDEN = "golden.npz"
ONNX_FILES: dict[Precision, str] = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
_TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        out: The bundle's folder.
        size: Input height and width; None takes the checkpoint's own.
        formats: ``onnx`` is always made: it is what the others are made from.
        precisions: ``fp32`` is always made: the others are judged against it.
        needed_onnx_only: Make ONNX files besides ``fp32`` only where one of the formats is ``onnx`` or built from them.
        calibration: Folder of real crops; None takes the set made from the checkpoint.
        skip_bad: Leave out files of that folder that are no readable images.
        input_format: ``pixels``: files take uint8 N×H×W×3 BGR and normalise themselves; ``tensor``: normalised
            float32 N×3×H×W RGB, for other software.
        target_cpu: ``any``: INT8 that is right on every CPU; ``vnni``: uses the full range, wrong on x86 without VNNI.
        norm: What the runtime does to features: ``l2`` or ``none``.
        max_batch: Largest batch of every file.
        force: Replace a bundle that is there.
        keep_rejected: Keep INT8 that its verdict rejects.
        time_files: Time every file that runs here, each in a process of its own.
    """

    out: Path
    size: Size | None = None
    formats: tuple[Format, ...] = ("onnx", "openvino")
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    needed_onnx_only: bool = False
    calibration: Path | None = None
    skip_bad: bool = False
    input_format: InputFormat = "pixels"
    target_cpu: TargetCpu = "any"
    norm: Literal["l2", "none"] = "l2"
    max_batch: int = 32
    force: bool = False
    keep_rejected: bool = False
    time_files: bool = True


def export_bundle(
    checkpoint: Checkpoint,
    options: ExportOptions,
    notify: Notify = silent,
    *,
    calibration: CalibrationSet | None = None,
) -> Bundle:
    """Export a checkpoint; the bundle appears when every file in it has been checked, or not at all.

    Args:
        checkpoint: Any width.
        options: What to make.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        calibration: At the size that is exported, where it has been made already.

    Raises:
        ConfigError: A size too small for the network.
        OutputError: The output exists or cannot be written.
        CalibrationError: No usable crops.
        ParityError: A file does not compute what the checkpoint computes.
        QuantizationRejected: INT8 changes the ranking too much.
    """
    checkpoint = checkpoint.at_size(options.size or checkpoint.info.size)
    with staged_folder(options.out, force=options.force) as folder:
        _Export(checkpoint, options, folder, notify, calibration).run()
    return open_bundle(options.out)


class _Export:
    """An export into a folder that nobody else sees yet."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ExportOptions,
        folder: Path,
        notify: Notify,
        calibration: CalibrationSet | None,
    ) -> None:
        self.checkpoint = checkpoint
        self.options = options
        self.folder = folder
        self.notify = notify
        if "int8" in options.precisions and calibration is None:
            calibration = calibration_set(checkpoint, options.calibration, notify, skip_bad=options.skip_bad)
        self.reference = make_reference(checkpoint, calibration, notify)
        self.manifest = self._empty_manifest()

    def run(self) -> None:
        """Make every file, check each, write the manifest."""
        steps = self._steps()
        on_step = self.notify("exporting and checking files", len(steps))
        for step in steps:
            self.manifest = with_artifact(self.manifest, step())
            on_step()
        write_manifest(self.folder, self.manifest)
        if self.options.time_files:
            write_manifest(self.folder, replace(self.manifest, latency=self._latency()))

    def _latency(self) -> tuple[Latency, ...]:
        runnable = [artifact for artifact in self.manifest.artifacts if artifact.parity is not None]
        on_step = self.notify("timing files", len(runnable))
        timed: list[Latency] = []
        for artifact in runnable:
            timed += measure(self.folder, artifact)
            on_step()
        return tuple(timed)

    def _steps(self) -> list[Callable[[], Artifact]]:
        """List a step for each file; ONNX first, which the others are made from."""
        wanted = self.options.precisions
        all_onnx = not self.options.needed_onnx_only or {"onnx", "tensorrt"}.intersection(self.options.formats)
        onnx = {"fp32", *wanted} if all_onnx else {"fp32"}
        steps: list[Callable[[], Artifact]]
        steps = [partial(self._onnx, precision) for precision in ONNX_FILES if precision in onnx]
        makers = {"openvino": self._openvino, "native": self._native, "tensorrt": self._tensorrt}
        for name in self.options.formats:
            if name != "onnx":
                steps += [partial(makers[name], precision) for precision in makable(name) if precision in wanted]
        return steps

    def _onnx(self, precision: Precision) -> Artifact:
        path = self.folder / ONNX_FILES[precision]
        if precision == "int8":
            quantize_onnx(self.folder / ONNX_FILES["fp32"], path, self._calibration_batches(), needs_vnni=self._vnni)
        else:
            network = Deployable(
                fold(self.reference.network), self.checkpoint.info, self.options.input_format, half=precision == "fp16"
            )
            export_onnx(network, path)
        return self._checked("onnxruntime", precision, (ONNX_FILES[precision],))

    def _openvino(self, precision: Precision) -> Artifact:
        relative = f"openvino/{precision}.xml"
        path = self.folder / relative
        path.parent.mkdir(exist_ok=True)
        source = self.folder / ONNX_FILES["fp32"]
        if precision == "int8":
            quantize_openvino(source, path, self._calibration_batches(), needs_vnni=self._vnni)
        else:
            write_ir(source, path, half_weights=precision == "fp16")
        return self._checked("openvino", precision, (relative, f"openvino/{precision}.bin"))

    def _native(self, precision: Precision) -> Artifact:
        relative = f"native/{precision}.plan"
        source = self.folder / ONNX_FILES["fp32"]
        plan = int8_plan_of_onnx(source, self._calibration_batches()) if precision == "int8" else plan_of_onnx(source)
        write_whole(self.folder / relative, plan)
        return self._checked("native", precision, (relative,))

    def _tensorrt(self, precision: Precision) -> Artifact:
        return build_tensorrt(Bundle(self.folder, self.manifest), precision, max_batch=self.options.max_batch)

    def _checked(self, engine: EngineName, precision: Precision, files: tuple[str, ...]) -> Artifact:
        """Describe files, and run them against the checkpoint."""
        artifact = Artifact(
            engine=engine,
            precision=precision,
            files=tuple(file_entry(self.folder, name) for name in files),
            rewrite=("fold",),
            mult_adds=onnx_mult_adds(self.folder / ONNX_FILES["fp32"]),  # precision does not change the count
            max_batch=self.options.max_batch,
            needs_vnni=precision == "int8" and self._vnni and engine != "native",
        )
        return self.reference.check(
            Bundle(self.folder, self.manifest), artifact, keep_rejected=self.options.keep_rejected
        )

    @property
    def _vnni(self) -> bool:
        return self.options.target_cpu == "vnni"

    def _calibration_batches(self) -> list[Batch]:
        return self.reference.calibration_batches(self.manifest.input)

    def _empty_manifest(self) -> Manifest:
        info = self.checkpoint.info
        pixels = self.options.input_format == "pixels"
        spec = InputSpec(
            size=info.size,
            dtype="uint8" if pixels else "float32",
            layout="NHWC" if pixels else "NCHW",
            color_order="BGR" if pixels else "RGB",
            resize=RESIZE_RULE,
            mean=info.mean,
            std=info.std,
            normalised_in="graph" if pixels else "host",
        )
        features = FeatureSpec(dim=info.config.feature_dim, norm=self.options.norm, distance="cosine")
        counted = complexity(info.config)
        self.reference.save_golden(self.folder / GOLDEN)
        return Manifest(
            model_hash=model_hash(self.checkpoint.sha256, spec, features),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            input=spec,
            features=features,
            model=ModelSpec(
                width=info.width,
                parameters=counted.parameters,
                mult_adds=counted.mult_adds,
                checkpoint_sha256=self.checkpoint.sha256,
                dataset=info.dataset,
                recipe=info.recipe,
                metrics=info.metrics,
                variant=str(info.variant),
                adapted=tuple(map(str, info.adaptations)),
            ),
            artifacts=(),
            golden=file_entry(self.folder, GOLDEN),
            calibration=self.reference.calibration.record if self.reference.calibration else None,
            tools=tool_versions(),
        )


def makable(name: Format) -> tuple[Precision, ...]:
    """Return the precisions of a format's files that can be made here."""
    if name == "native":
        return native_precisions()
    return plan_precisions() if name == "tensorrt" else tuple(ONNX_FILES)


def tool_versions() -> dict[str, str]:
    """List the versions of what makes a bundle."""
    versions = {"reid-edge": reid_edge.__version__, "python": platform.python_version()}
    for package in _TOOLS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
