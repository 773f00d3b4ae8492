"""Tune checkpoints: find the bundle that is fastest on this device and write it, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from reid_edge.benchmark.scheduler import time_variants
from reid_edge.benchmark.timing import Variant
from reid_edge.bundle import Bundle, open_bundle, write_manifest
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.errors import BundleError, CalibrationError, TuningError, UsageError
from reid_edge.export.calibration import CalibrationSet, calibration_set, save_set, saved_set
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.export.reference import make_reference
from reid_edge.export.staging import staged_folder
from reid_edge.files import write_whole
from reid_edge.images import list_images
from reid_edge.manifest import EngineName, FileEntry, with_artifact
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.osnet.complexity import complexity
from reid_edge.progress import Notify
from reid_edge.runtime.engines.hardware import runs_on_nvidia
from reid_edge.system.energy import EnergyMeter, find_meter, missing_reason
from reid_edge.tune.builder import CandidateBuilder
from reid_edge.tune.constraint import Constraint, FeatureAgreement, MeanAveragePrecision
from reid_edge.tune.engines import TuningEngine, tuning_engines
from reid_edge.tune.measurement import Objective, Score
from reid_edge.tune.result_cache import ResultCache, work_folder
from reid_edge.tune.tuner import Tuner

#: A checkpoint whose plain exports all take longer than this many times the limit is not tuned: nothing gained more.
HOPELESS = 3.0


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Options of a tuning.

    Attributes:
        out: The tuned bundle's folder.
        engine: One of them; ``cpu``: all that run on the CPU, or on ``device``, against each other.
        device: What computes: ``CPU``, a device of OpenVINO or a provider of ONNX Runtime.
        objective: What is minimised.
        budget_minutes: For each checkpoint that is tuned, about; distilling calibration crops comes on top.
        latency_ms: Take the most accurate checkpoint whose objective is at most this; None: the only one given.
        labelled: Query and gallery to keep the mAP on; None: features must agree instead.
        max_drop: Points of mAP, of 100, that may be lost.
        calibration: Folder of real crops; None: the set made from the checkpoint.
        skip_bad: Leave out files of that folder that are no readable images.
        force: Replace a bundle that is there.
    """

    out: Path
    engine: EngineName | Literal["cpu"] = "cpu"
    device: str = "CPU"
    objective: Objective = Objective()  # noqa: RUF009 - frozen
    budget_minutes: float = 15
    latency_ms: float | None = None
    labelled: Mapping[Split, Sequence[LabelledImage]] | None = None
    max_drop: float = 0.5
    calibration: Path | None = None
    skip_bad: bool = False
    force: bool = False


def tune(checkpoints: Sequence[Checkpoint], options: TuneOptions, notify: Notify) -> Bundle:
    """Tune for this device; the bundle appears when its file has been chosen and checked, or not at all.

    Interrupted, it goes on where it was when it is run again with the same arguments.

    Args:
        checkpoints: One; or with ``latency_ms`` any number, of which the most accurate that is fast enough is taken.
        options: What for.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Raises:
        UsageError: Options that do not go together, or an objective that this device does not measure.
        OutputError: The output exists or cannot be written, or another process tunes there.
        EngineUnavailableError: Files for the engine cannot be made here, or it has no such device.
        MissingExtraError: The engine's package is not installed.
        TuningError: Nothing is fast enough, or keeps the accuracy; or nothing can be timed here.
        CalibrationError: No usable crops.
    """
    engines = tuning_engines(options.engine, options.objective.query.crops, options.device)
    for engine in engines:
        if reason := engine.why_untimed():
            raise TuningError(reason)
    _check_options(checkpoints, options)
    meter = _meter(options, engines)
    # Before any work: is there anything in the way?
    with staged_folder(options.out, force=options.force) as staged, work_folder(options.out) as folder:
        slower: list[str] = []
        for checkpoint in by_accuracy(checkpoints):
            tuning = _CheckpointTuning(checkpoint, options, engines, folder, notify, meter)
            if (reason := tuning.why_hopeless()) or (reason := tuning.why_too_slow()):
                slower.append(reason)
                continue
            tuning.write(staged)
            break
        else:
            raise TuningError(
                f"no checkpoint reaches {options.latency_ms} ms here: {'; '.join(slower)}. "
                "Give a smaller width or input size (--checkpoint), fewer crops, or a larger --latency-ms."
            )
    return open_bundle(options.out)


def _check_options(checkpoints: Sequence[Checkpoint], options: TuneOptions) -> None:
    if options.latency_ms is not None and options.objective.goal not in ("p50", "p99"):
        raise UsageError(
            f"--latency-ms bounds a query's time; --objective {options.objective.goal} is none. Use p50 or p99."
        )
    if options.latency_ms is not None and not options.latency_ms > 0:
        raise UsageError(f"--latency-ms must be more than 0, got {options.latency_ms}.")
    if options.calibration is not None and not options.calibration.is_dir():
        raise CalibrationError(f"no folder of calibration crops at {options.calibration}.")
    if len(checkpoints) != 1 and options.latency_ms is None:
        raise UsageError("several checkpoints need --latency-ms: how fast the one that is taken has to be.")


def by_accuracy(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Sort checkpoints: the most accurate first, by a figure that all of them have; else the one with most work."""
    shared = set.intersection(*(set(checkpoint.info.metrics) for checkpoint in checkpoints))
    figure = next((name for name in sorted(shared) if name.endswith("mAP")), None)
    if figure is not None:
        return sorted(checkpoints, key=lambda checkpoint: -checkpoint.info.metrics[figure])
    return sorted(checkpoints, key=lambda checkpoint: -complexity(checkpoint.info.config).mult_adds)


def _meter(options: TuneOptions, engines: Sequence[TuningEngine]) -> EnergyMeter | None:
    if options.objective.goal != "energy":
        return None
    meter = find_meter()
    on_gpu = all(runs_on_nvidia(engine.name, options.device) for engine in engines)
    if meter is None or ("gpu" if on_gpu else "cpu") not in meter.hardware:
        why = f"No energy: {meter.source} does not count the GPU." if meter and on_gpu else missing_reason()
        raise UsageError(f"--objective energy: {why} Use p50, p99 or throughput.")
    return meter


class _CheckpointTuning:
    """The tuning of one checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: TuneOptions,
        engines: Sequence[TuningEngine],
        folder: Path,
        notify: Notify,
        meter: EnergyMeter | None,
    ) -> None:
        self._checkpoint, self._options, self._notify, self._meter = checkpoint, options, notify, meter
        reasons = [engine.why_not(checkpoint.info) for engine in engines]
        self._engines = [engine for engine, reason in zip(engines, reasons, strict=True) if not reason]
        if not self._engines:
            raise TuningError(f"{engines[0].name} cannot run this network: {reasons[0]}")
        self._folder = folder / checkpoint.sha256[:12]
        self._folder.mkdir(exist_ok=True)
        self._cache = ResultCache(self._folder, _identity(checkpoint, options, engines))
        with self._cache.stopped_clock():
            self._calibration = self._calibration_set()
        self._base = self._plain_export()

    def _calibration_set(self) -> CalibrationSet:
        """Make the set once: distilling takes minutes."""
        path = self._folder / "calibration.npz"
        if self._cache.resumed and path.exists():
            with contextlib.suppress(CalibrationError):  # damaged: made again
                return saved_set(path)
        made = calibration_set(
            self._checkpoint, self._options.calibration, self._notify, skip_bad=self._options.skip_bad
        )
        if made.record.source == "distilled":
            save_set(made, path)
        return made

    def _plain_export(self) -> Bundle:
        path = self._folder / "plain"
        if self._cache.resumed and path.exists():
            with contextlib.suppress(BundleError):  # damaged: exported again
                held = open_bundle(path)
                held.check_files()
                return held
        formats = tuple(dict.fromkeys(name for engine in self._engines for name in engine.formats))
        precisions = tuple(dict.fromkeys(name for engine in self._engines for name in engine.plain))
        options = ExportOptions(
            out=path, formats=formats, precisions=precisions, needed_onnx_only=True, keep_rejected=True,
            time_files=False, force=True,
        )  # fmt: skip
        return export_bundle(self._checkpoint, options, self._notify, calibration=self._calibration)

    def why_hopeless(self) -> str:
        """Say why tuning cannot make this checkpoint fast enough; "" if it might."""
        limit = self._options.latency_ms
        if limit is None:
            return ""
        best = self._cache.recall("plain", self._best_plain, float)
        return f"{_name(self._checkpoint)} takes {best:.2f} untuned" if best > HOPELESS * limit else ""

    def why_too_slow(self) -> str:
        """Tune, and say why the result is not fast enough; "" if it is."""
        limit = self._options.latency_ms
        self._choice = self._tuner().run()
        reached = next(trial.objective for trial in self._choice.tuning.trials if trial.outcome == "chosen")
        assert reached is not None
        return f"{_name(self._checkpoint)} takes {reached:.2f}" if limit is not None and reached > limit else ""

    def write(self, folder: Path) -> None:
        """Write the plain export, without INT8 that its verdict rejects, and the tuned file with its evidence."""
        base, choice = self._base, self._choice
        kept = tuple(one for one in base.manifest.artifacts if one.verdict is None or not one.verdict.reasons)
        manifest = replace(base.manifest, artifacts=kept, tuning=choice.tuning)
        _copy(base, [manifest.golden, *(entry for artifact in kept for entry in artifact.files)], folder)
        for artifact in choice.bundle.manifest.artifacts:
            _copy(choice.bundle, artifact.files, folder)
            manifest = with_artifact(manifest, artifact)
        write_manifest(folder, manifest)

    def _tuner(self) -> Tuner:
        checkpoint, options = self._checkpoint, self._options
        reference = make_reference(checkpoint, self._calibration, self._notify)
        builder = CandidateBuilder(self._base, reference, self._engines, self._folder)
        return Tuner(
            builder,
            options.objective,
            self._constraint(),
            self._cache,
            budget_minutes=options.budget_minutes,
            notify=self._notify,
            meter=self._meter,
        )

    def _constraint(self) -> Constraint:
        options = self._options
        if options.labelled is None:
            return FeatureAgreement()
        engine = self._engines[0].name
        return MeanAveragePrecision(
            self._base,
            engine,
            options.labelled,
            device=options.device,
            max_drop=options.max_drop,
            notify=self._notify,
        )

    def _best_plain(self) -> float:
        names = {engine.name for engine in self._engines}
        artifacts = [artifact for artifact in self._base.manifest.artifacts if artifact.engine in names]
        device = self._options.device
        variants = [
            Variant(bundle=self._base.path, engine=one.engine, precision=one.precision, device=device)
            for one in artifacts
        ]
        query = self._options.objective.query
        timings, failures = time_variants(variants, [query], rounds=3, seconds=0.3, energy_meter=self._meter)
        scores: list[Score] = [self._options.objective.score(timing) for timing in timings]
        if not scores:
            raise TuningError(f"nothing could be timed: {'; '.join(failure.reason for failure in failures)}")
        return min(score.value for score in scores)


def _name(checkpoint: Checkpoint) -> str:
    height, width = checkpoint.info.size
    return f"x{checkpoint.info.width:g} at {height}x{width}"


def _copy(bundle: Bundle, entries: Iterable[FileEntry], folder: Path) -> None:
    for entry in entries:
        write_whole(folder / entry.path, bundle.read(entry))


def _identity(checkpoint: Checkpoint, options: TuneOptions, engines: Sequence[TuningEngine]) -> str:
    """Hash all that measured values depend on."""
    images = [image.path for images in (options.labelled or {}).values() for image in images]
    if options.calibration is not None:
        images += list_images([options.calibration])
    decisive = [
        checkpoint.sha256, checkpoint.info.size, options.engine, options.objective, options.max_drop,
        [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in images],
        [(engine.device_class(), engine.tools()) for engine in engines],
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()
