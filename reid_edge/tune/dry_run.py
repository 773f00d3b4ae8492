"""Build every candidate where none can be timed: shows that the device's library takes them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reid_edge.errors import EngineError, ParityError
from reid_edge.export.calibration import calibration_set
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.export.reference import make_reference
from reid_edge.export.tensorrt import count_layers
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.progress import Notify
from reid_edge.tune.builder import CandidateBuilder
from reid_edge.tune.candidates import Candidate, grid
from reid_edge.tune.engines import TuningEngine, tuning_engines
from reid_edge.tune.run import TuneOptions


@dataclass(frozen=True, kw_only=True)
class DryRunResult:
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


def dry_run(checkpoint: Checkpoint, options: TuneOptions, notify: Notify) -> list[DryRunResult]:
    """Build and parse the plans that tuning would time; nothing is kept.

    Args:
        checkpoint: What to tune.
        options: As for :func:`reid_edge.tune.run.tune`; only engine, device, crops and calibration matter.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Raises:
        EngineUnavailableError: No plans can be built here.
        CalibrationError: No usable crops.
    """
    engines = tuning_engines(options.engine, options.objective.query.crops, options.device)
    with tempfile.TemporaryDirectory(prefix="reid-edge-tune-") as folder:
        builder = _builder(checkpoint, options, engines, Path(folder), notify)
        variant = checkpoint.info.config.variant
        candidates = [one for engine in engines for one in grid(engine, variant, builder.max_batch)]
        on_step = notify("building plans", len(candidates))
        results = []
        for candidate in candidates:
            results.append(_build(candidate, builder))
            on_step()
    return results


def _builder(
    checkpoint: Checkpoint, options: TuneOptions, engines: Sequence[TuningEngine], folder: Path, notify: Notify
) -> CandidateBuilder:
    calibration = calibration_set(checkpoint, options.calibration, notify, skip_bad=options.skip_bad)
    plain = ExportOptions(out=folder / "plain", formats=("onnx",), precisions=("fp32",), time_files=False)
    base = export_bundle(checkpoint, plain, notify, calibration=calibration)
    return CandidateBuilder(base, make_reference(checkpoint, calibration, notify), engines, folder)


def _build(candidate: Candidate, builder: CandidateBuilder) -> DryRunResult:
    try:
        source = builder.build_source(candidate)
        entry = source.manifest.artifacts[0].files[0]
        layers = count_layers(source.read(entry), entry.path)
        start = time.monotonic()
        plan = builder.engines[candidate.engine].complete(source).manifest.artifacts[0]
    except (EngineError, ParityError) as error:
        return DryRunResult(name=candidate.name, failure=str(error))
    return DryRunResult(
        name=candidate.name,
        onnx_bytes=entry.size_bytes,
        plan_bytes=plan.size_bytes,
        seconds=time.monotonic() - start,
        layers=layers,
    )
