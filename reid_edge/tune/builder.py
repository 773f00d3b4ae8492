"""Build candidates: for each a bundle with what is to be timed first, so that the benchmark's workers can load it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from reid_edge.benchmark.onnx_complexity import onnx_mult_adds
from reid_edge.bundle import MANIFEST, Bundle, file_entry, open_bundle, write_manifest
from reid_edge.errors import BundleError
from reid_edge.export.half_floats import with_half_floats
from reid_edge.export.onnx import Deployable, InputFormat, export_onnx
from reid_edge.export.reference import Reference
from reid_edge.files import write_whole
from reid_edge.manifest import Artifact, EngineName, Precision, with_artifact
from reid_edge.osnet.rewrites import Rewrite, rewrite
from reid_edge.runtime.engines import EngineOptions
from reid_edge.tune.candidates import Candidate, int8_parts
from reid_edge.tune.engines import Quantization, TuningEngine

#: Crops that calibrate a draft, which is only timed.
DRAFT_CROPS = 2


class CandidateBuilder:
    """Makes candidates' files, each once, in a folder that outlives an interrupted run.

    Candidates of the plain network take the files of the plain export: they differ in how these are run.

    Args:
        base: The plain export: files, input spec, golden crops, and what the manifest says of the model.
        reference: The checkpoint that was exported, with calibration crops.
        engines: What will run the files.
        folder: Where files are kept.
    """

    def __init__(self, base: Bundle, reference: Reference, engines: Sequence[TuningEngine], folder: Path) -> None:
        self.base = base
        self.reference = reference
        self.engines: dict[EngineName, TuningEngine] = {engine.name: engine for engine in engines}
        self._folder = folder

    @property
    def max_batch(self) -> int:
        """The most crops that the exported files take at once."""
        return max(artifact.max_batch for artifact in self.base.manifest.artifacts)

    def int8_parts(self, candidate: Candidate) -> tuple[str, ...]:
        """Name what a candidate has in INT8."""
        return int8_parts(self.reference.network.config) if candidate.int8 else ()

    def is_quick(self, candidate: Candidate) -> bool:
        """Return True if timing a candidate needs no long work: its files are there, and nothing is built from them."""
        engine = self.engines[candidate.engine]
        there = self._plain_artifact(candidate) is not None and engine.file_engine == engine.name
        return there or any((self._folder_of(candidate, draft=draft) / MANIFEST).exists() for draft in (False, True))

    def build(self, candidate: Candidate, *, draft: bool = False) -> Bundle:
        """Make a bundle that holds one candidate as ``tuned``; unchecked.

        Args:
            candidate: What.
            draft: INT8 may be as fast as it will be, and not yet accurate.

        Raises:
            EngineError: The engine cannot take the candidate.
            ParityError: What the engine made of the candidate does not compute the same.
        """
        draft = draft and self._can_draft(candidate)
        folder = self._folder_of(candidate, draft=draft)
        if (folder / MANIFEST).exists():  # which is written last
            with contextlib.suppress(BundleError):  # damaged: made again
                held = open_bundle(folder)
                held.check_files()
                return held
        bundle = self.engines[candidate.engine].complete(self._source(candidate, folder, draft=draft))
        write_manifest(folder, bundle.manifest)
        return bundle

    def build_checked(self, candidate: Candidate) -> Bundle:
        """Make a candidate's bundle, run against the checkpoint: its verdict says what it does to the ranking.

        Raises:
            EngineError: It cannot run here.
            ParityError: What the engine made of the candidate does not compute the same.
        """
        bundle = self.build(candidate)
        first, *others = bundle.manifest.artifacts
        if first.verdict is None:
            device = self.engines[candidate.engine].device
            first = self.reference.check(bundle, first, EngineOptions(device=device), keep_rejected=True)
        manifest = replace(bundle.manifest, artifacts=(first, *others))
        write_manifest(bundle.path, manifest)
        return Bundle(bundle.path, manifest)

    def build_source(self, candidate: Candidate) -> Bundle:
        """Make what :meth:`TuningEngine.complete` completes; the manifest is not on disk.

        Raises:
            EngineError: It cannot run here.
        """
        return self._source(candidate, self._folder_of(candidate, draft=False), draft=False)

    def _can_draft(self, candidate: Candidate) -> bool:
        made = self._plain_artifact(candidate) is not None
        return candidate.int8 and self.engines[candidate.engine].drafts and not made

    def _folder_of(self, candidate: Candidate, *, draft: bool) -> Path:
        return self._folder / "bundles" / f"{candidate.key}{'-draft' if draft else ''}"

    def _source(self, candidate: Candidate, folder: Path, *, draft: bool) -> Bundle:
        """Make a candidate's files; where something is built from them they are checked: the plan has to agree."""
        bundle = self._bundle_of_files(candidate, folder, draft=draft)
        engine = self.engines[candidate.engine]
        if engine.file_engine == engine.name:
            return bundle
        artifact = self.reference.check(
            bundle, bundle.manifest.artifacts[0], EngineOptions(as_written=True), keep_rejected=True
        )
        return Bundle(folder, with_artifact(bundle.manifest, artifact))

    def _bundle_of_files(self, candidate: Candidate, folder: Path, *, draft: bool) -> Bundle:
        engine = self.engines[candidate.engine]
        made = self._file(candidate, draft=draft)
        golden = self.base.manifest.golden.path
        _link(self.base.path / golden, folder / golden)
        for relative, suffix in engine.files.items():
            _link(made.with_suffix(suffix), folder / relative)
        artifact = Artifact(
            engine=engine.file_engine,
            precision="tuned",
            files=tuple(file_entry(folder, relative) for relative in engine.files),
            rewrite=candidate.rewrite.names,
            mult_adds=onnx_mult_adds(self._onnx(candidate)),
            max_batch=candidate.max_batch,
            int8=self.int8_parts(candidate),
            execution=candidate.execution,
        )
        return Bundle(folder, replace(self.base.manifest, artifacts=(artifact,), latency=()))

    def _file(self, candidate: Candidate, *, draft: bool) -> Path:
        """Path of the first of a candidate's files; others lie beside it."""
        if (artifact := self._plain_artifact(candidate)) is not None:
            return self._checked_path(artifact)
        engine = self.engines[candidate.engine]
        if candidate.int8 and self._half(candidate):
            return self._half_int8_file(candidate)
        suffix = next(iter(engine.files.values()))
        precision = "int8" if candidate.int8 else "float"
        ending = f"-{precision}{'-half' if self._half(candidate) else ''}{'-draft' if draft else ''}{suffix}"
        source = self._onnx(candidate)
        quantization = self._quantization(draft=draft) if candidate.int8 else None
        path = self._folder / "files" / f"{engine.file_engine}-{_slug(candidate.rewrite)}{ending}"
        return _make_once(path, lambda partial: engine.write(source, partial, quantization))

    def _half_int8_file(self, candidate: Candidate) -> Path:
        """Path of an ONNX file in INT8 and float16, made from that in INT8 and float32: NNCF quantizes no float16."""
        execution = replace(candidate.execution, float_type="f32")
        source = self._file(replace(candidate, execution=execution), draft=False)
        path = self._folder / "files" / f"half-{_slug(candidate.rewrite)}.onnx"
        return _make_once(path, lambda partial: write_whole(partial, with_half_floats(source.read_bytes(), path.name)))

    def _plain_artifact(self, candidate: Candidate) -> Artifact | None:
        """Find the plain export's file that a candidate runs in its own way, if there is one."""
        if candidate.rewrite != Rewrite() or (candidate.int8 and self._half(candidate)):
            return None
        precision: Precision = "int8" if candidate.int8 else "fp16" if self._half(candidate) else "fp32"
        return self._held(self.engines[candidate.engine].file_engine, precision)

    def _held(self, engine: EngineName, precision: Precision) -> Artifact | None:
        """Find a file of the plain export."""
        held = self.base.manifest.artifacts
        return next((one for one in held if (one.engine, one.precision) == (engine, precision)), None)

    def _checked_path(self, artifact: Artifact) -> Path:
        """Path of the first of a plain export's files, all compared with its manifest."""
        for entry in artifact.files:
            self.base.read(entry)
        return self.base.path / artifact.files[0].path

    def _half(self, candidate: Candidate) -> bool:
        """Return True if the candidate's ONNX file is in float16."""
        return self.engines[candidate.engine].half_weights and candidate.execution.float_type == "f16"

    def _quantization(self, *, draft: bool) -> Quantization:
        batches = self.reference.calibration_batches(self.base.manifest.input)
        return Quantization(batches=batches[: DRAFT_CROPS if draft else None], draft=draft)

    def _onnx(self, candidate: Candidate) -> Path:
        """Path of the ONNX file of a candidate's rewrite before INT8, in float32 or float16."""
        half = self._half(candidate) and not candidate.int8
        if candidate.rewrite == Rewrite():
            plain = self._held("onnxruntime", "fp16" if half else "fp32")
            if plain is not None:
                return self._checked_path(plain)
        input_format: InputFormat = "pixels" if self.base.manifest.input.normalised_in == "graph" else "tensor"

        def write(partial: Path) -> None:
            network = rewrite(self.reference.network, candidate.rewrite)
            info = self.reference.checkpoint.info
            export_onnx(Deployable(network, info, input_format, half=half), partial)

        return _make_once(self._folder / "onnx" / f"{_slug(candidate.rewrite)}{'-half' if half else ''}.onnx", write)


def _slug(wanted: Rewrite) -> str:
    return "-".join(wanted.names)


def _make_once(path: Path, write: Callable[[Path], None]) -> Path:
    """Make a file whole if it is not there; one that comes with it has the same name and ends in ``.bin``."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{os.getpid()}{path.suffix}")
    try:
        write(partial)
        if partial.with_suffix(".bin").exists():
            partial.with_suffix(".bin").replace(path.with_suffix(".bin"))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        partial.with_suffix(".bin").unlink(missing_ok=True)
    return path


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
