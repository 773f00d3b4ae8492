"""Makes every candidate where none can be timed: shows that the device's library takes them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reid_edge.errors import EngineError, ParityError
from reid_edge.export.calibration import calibration_set
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.export.reference import make_reference
from reid_edge.export.tensorrt import count_layers
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.progress import Notify
from reid_edge.tune.engines import TuningEngine, tuning_engine
from reid_edge.tune.executions import run_by
from reid_edge.tune.forms import Candidate
from reid_edge.tune.run import TuneOptions
from reid_edge.tune.workshop import Workshop
from reid_edge.tuning_record import Execution


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """One candidate that was built and not timed.

    Attributes:
        name: As in a tuned bundle's evidence.
        onnx_bytes: Size of what the plan is built from.
        plan_bytes: Size of the plan; None where it was not built.
        seconds: To parse and build; None where it was not built.
        layers: Before TensorRT fuses them; None where they could not be counted.
        failure: Why it was not built; "" if it was.
    """

    name: str
    onnx_bytes: int | None = None
    plan_bytes: int | None = None
    seconds: float | None = None
    layers: int | None = None
    failure: str = ""


def rehearse(checkpoint: Checkpoint, options: TuneOptions, notify: Notify) -> list[Rehearsed]:
    """Build and parse the plans that tuning would time; nothing is kept.

    Args:
        checkpoint: What to tune.
        options: As for :func:`reid_edge.tune.run.tune`; only engine, crops and calibration matter.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Raises:
        EngineUnavailableError: No plans can be built here.
        CalibrationError: No usable crops.
    """
    engine = tuning_engine(options.engine, options.objective.query.crops)
    with tempfile.TemporaryDirectory(prefix="reid-edge-tune-") as folder:
        workshop = _workshop(checkpoint, options, engine, Path(folder), notify)
        candidates = list(_candidates(engine, checkpoint.info.config, workshop.base.manifest.artifacts[0].max_batch))
        on_step = notify("building plans", len(candidates))
        rehearsed = []
        for candidate in candidates:
            rehearsed.append(_rehearsed(candidate, workshop))
            on_step()
    return rehearsed


def _workshop(
    checkpoint: Checkpoint, options: TuneOptions, engine: TuningEngine, folder: Path, notify: Notify
) -> Workshop:
    calibration = calibration_set(checkpoint, options.calibration, notify)
    plain = ExportOptions(out=folder / "plain", formats=("onnx",), precisions=("fp32",), time_files=False)
    base = export_bundle(checkpoint, plain, notify, calibration=calibration)
    return Workshop(base, make_reference(checkpoint, calibration, notify), engine, folder)


def _candidates(engine: TuningEngine, config: OSNetConfig, max_batch: int) -> Iterator[Candidate]:
    for float_type in engine.float_types():
        for probe in engine.probes(config, float_type):
            candidate = Candidate(probe.name, probe.form, Execution(), max_batch)
            yield run_by(candidate, Execution(float_type=float_type))


def _rehearsed(candidate: Candidate, workshop: Workshop) -> Rehearsed:
    try:
        source = workshop.source(candidate)
        entry = source.manifest.artifacts[0].files[0]
        layers = count_layers(source.path / entry.path)
        start = time.monotonic()
        plan = workshop.engine.complete(source).manifest.artifacts[0]
    except (EngineError, ParityError) as error:
        return Rehearsed(name=candidate.name, failure=str(error))
    return Rehearsed(
        name=candidate.name,
        onnx_bytes=entry.size_bytes,
        plan_bytes=plan.size_bytes,
        seconds=time.monotonic() - start,
        layers=layers,
    )
