"""The table of targets, and the making of one: a folder that is there whole or not at all."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import reid_edge
from reid_edge.bundle import Bundle, file_entry
from reid_edge.errors import BundleError, CalibrationError, UsageError
from reid_edge.export.calibration import CalibrationSet, distilled_set, folder_set, shipped_set_of
from reid_edge.export.staging import staged_folder
from reid_edge.export.targets.converted import write_litert, write_ncnn
from reid_edge.export.targets.deepstream import write_deepstream
from reid_edge.export.targets.model_server import write_model_server
from reid_edge.export.targets.npu import write_hailo, write_qnn, write_rknn
from reid_edge.export.targets.triton import write_triton
from reid_edge.export.targets.work import TargetWork
from reid_edge.manifest import Precision
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.progress import Notify
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.extractor import as_input
from reid_edge.runtime.target_folder import CHECK, RECORD, TargetName, TargetRecord, read_record, write_record
from reid_edge.types import Features, Image


@dataclass(frozen=True)
class Target:
    """Software that takes models of its own form.

    Attributes:
        title: Its name.
        format: The format of a bundle's files that it is made of.
        write: Writes its files and returns what to do next, for software that takes a finished network.
        write_calibrated: The same for a compiler that calibrates INT8 itself; gets the crops that check the device.
    """

    title: str
    format: str
    write: Callable[[TargetWork], list[str]] | None = None
    write_calibrated: Callable[[TargetWork, Image], list[str]] | None = None


TARGETS: dict[TargetName, Target] = {
    "deepstream": Target("NVIDIA DeepStream", "onnx", write_deepstream),
    "triton": Target("NVIDIA Triton", "onnx", write_triton),
    "openvino-model-server": Target("OpenVINO Model Server", "openvino", write_model_server),
    "hailo": Target("Hailo's Dataflow Compiler", "onnx", write_calibrated=write_hailo),
    "rknn": Target("Rockchip's RKNN-Toolkit2", "onnx", write_calibrated=write_rknn),
    "qnn": Target("Qualcomm's AI Engine Direct", "onnx", write_calibrated=write_qnn),
    "ncnn": Target("ncnn", "onnx", write_ncnn),
    "litert": Target("LiteRT", "onnx", write_litert),
}


def needs_calibration(target: TargetName) -> bool:
    """Return True for a compiler that calibrates INT8 itself, and so needs crops."""
    return TARGETS[target].write_calibrated is not None


def export_target(
    bundle: Bundle,
    target: TargetName,
    out: Path,
    *,
    precisions: Sequence[Precision],
    calibration: CalibrationSet | None = None,
    force: bool = False,
) -> list[str]:
    """Make the files that other software takes from a bundle.

    Args:
        bundle: Its files take pixels.
        target: The software.
        out: The folder, which appears when every file is written.
        precisions: Those wanted, of those that the bundle has.
        calibration: At the size of the bundle; for targets that need it (:func:`needs_calibration`).
        force: Replace a folder of this kind that is there.

    Returns:
        What to do next, a line each.

    Raises:
        TargetError: The bundle lacks what the target needs.
        CalibrationError: The crops have another size than the bundle's input.
        EngineUnavailableError: The bundle has no FP32 ONNX file, which compilers for NPUs are given.
        BundleCorruptError: A file of the bundle is missing or has changed.
        OutputError: The folder exists or cannot be written.
    """
    with staged_folder(out, force=force, why_foreign=_not_of_a_target) as folder:
        work = TargetWork(bundle=bundle, folder=folder, precisions=precisions, calibration=calibration)
        made = TARGETS[target]
        record = _empty_record(bundle, target)
        if made.write_calibrated:
            crops, record = _write_check(work, record)
            next_steps = made.write_calibrated(work, crops[..., ::-1])
        else:
            assert made.write is not None
            next_steps = made.write(work)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        write_record(folder, replace(record, files=tuple(file_entry(folder, name) for name in names)))
    return [step.replace("FOLDER", shlex.quote(str(out.absolute()))) for step in next_steps]


def target_calibration(
    bundle: Bundle, checkpoint: Checkpoint | None, crops: Path | None, notify: Notify, *, skip_bad: bool = False
) -> CalibrationSet:
    """Return crops to calibrate a bundle's network with.

    Args:
        bundle: Gives the size.
        checkpoint: The one that the bundle was made of; None: not at hand, which is no matter where its set ships.
        crops: A folder of real crops; None takes the set made from the checkpoint.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        skip_bad: Leave out files of the folder that are no readable images.

    Raises:
        UsageError: The checkpoint is another than the bundle's.
        CalibrationError: No usable crops, and no checkpoint to make them from.
    """
    size, sha256 = bundle.manifest.input.size, bundle.manifest.model.checkpoint_sha256
    if checkpoint is not None and checkpoint.sha256 != sha256:
        raise UsageError(
            f"{bundle.path} was made of another checkpoint: sha256 {sha256[:12]}…, the one given has "
            f"{checkpoint.sha256[:12]}…."
        )
    if crops is not None:
        return folder_set(crops, size, skip_bad=skip_bad)
    if found := shipped_set_of(sha256, size):
        return found
    if checkpoint is None:
        raise CalibrationError(
            f"{bundle.path} is of a checkpoint whose calibration crops do not ship: give it (--checkpoint FILE), so "
            "that they are made from it, or a folder of crops (--calibration DIR)."
        )
    return distilled_set(checkpoint.at_size(size), size, notify)


def _empty_record(bundle: Bundle, target: TargetName) -> TargetRecord:
    manifest = bundle.manifest
    return TargetRecord(
        target=target,
        model_hash=manifest.model_hash,
        size=manifest.input.size,
        features=manifest.features,
        made_by=f"reid-edge {reid_edge.__version__}",
        manifest_sha256=bundle.manifest_sha256,
    )


def _write_check(work: TargetWork, record: TargetRecord) -> tuple[Image, TargetRecord]:
    """Write the crops that check a device, golden ones first, and the features that it should give."""
    golden, golden_features = work.bundle.golden()
    calibration = work.calibration
    assert calibration is not None
    if calibration.held_out.shape[1:3] != golden.shape[1:3]:
        raise CalibrationError(
            f"the crops to calibrate with have {calibration.held_out.shape[1:3]} pixels, the bundle's input "
            f"{golden.shape[1:3]}; make them for this size."
        )
    features = _features(work.bundle, calibration.held_out)
    crops = np.concatenate([golden, calibration.held_out])
    content = io.BytesIO()
    np.savez_compressed(content, crops=crops, features=np.concatenate([golden_features, features]))
    work.write(CHECK, content.getvalue())
    return crops, replace(record, golden=len(golden))


def _features(bundle: Bundle, crops: Image) -> Features:
    """Compute features by the FP32 ONNX file, whose parity with the checkpoint was checked on export."""
    engine = load_engine(bundle, bundle.artifact("onnxruntime", "fp32"), EngineOptions())
    return np.concatenate([engine.infer(as_input(crop[None], bundle.manifest.input)) for crop in crops])


def _not_of_a_target(out: Path) -> str:
    """Say why a folder must not be taken for one of a target and deleted; "" for one of a target."""
    try:
        record = read_record(out)
    except BundleError:
        record = None
    if record is None:
        return "is not a folder that 'export --for' wrote"
    listed = {out / entry.path for entry in record.files} | {out / RECORD}
    strange = sorted(path for path in out.rglob("*") if path.is_file() and path not in listed)
    return f"holds a file that 'export --for' did not write: {strange[0]}" if strange else ""
