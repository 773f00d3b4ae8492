"""Makes candidates: for each a bundle with what is to be timed first, so that the benchmark's workers can load it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reid_edge.benchmark.onnx_complexity import onnx_mult_adds
from reid_edge.bundle import MANIFEST, Artifact, Bundle, file_entry, open_bundle, with_artifact, write_manifest
from reid_edge.export.onnx import Deployable, export_onnx
from reid_edge.export.reference import Reference
from reid_edge.osnet.rewrites import RewritePlan, rewrite
from reid_edge.tune.engines import Quantization, TuningEngine
from reid_edge.tune.forms import Candidate, Form, kept_float

#: Crops that calibrate a draft, which is only timed.
DRAFT_CROPS = 2


class Workshop:
    """Files of forms, each made once, in a folder that outlives a run.

    Args:
        base: The plain export: input spec, golden crops, and what the manifest says of the model.
        reference: The checkpoint that was exported, with calibration crops.
        engine: What will run the files.
        folder: Where files are kept.
    """

    def __init__(self, base: Bundle, reference: Reference, engine: TuningEngine, folder: Path) -> None:
        self.base = base
        self.reference = reference
        self.engine = engine
        self._folder = folder

    def candidate(self, candidate: Candidate, *, draft: bool = False) -> Bundle:
        """A bundle that holds one candidate as ``tuned``; unchecked.

        Args:
            candidate: What.
            draft: INT8 that is as fast as it will be, and not yet accurate.

        Raises:
            EngineError: The engine cannot take the form.
            ParityError: What the engine made of the form does not compute the same.
        """
        draft = draft and bool(candidate.form.int8) and self.engine.drafts
        folder = self._folder_of(candidate, draft=draft)
        if (folder / MANIFEST).exists():  # which is written last
            return open_bundle(folder)
        bundle = self.engine.complete(self._source(candidate, folder, draft=draft))
        write_manifest(folder, bundle.manifest)
        return bundle

    def checked(self, candidate: Candidate) -> Bundle:
        """A candidate's bundle, run against the checkpoint: its verdict says what it does to the ranking.

        Raises:
            EngineError: It cannot run here.
            ParityError: What the engine made of the form does not compute the same.
        """
        bundle = self.candidate(candidate)
        first, *others = bundle.manifest.artifacts
        if first.verdict is None:
            first = self.reference.check(bundle, first, keep_rejected=True)
        manifest = replace(bundle.manifest, artifacts=(first, *others))
        write_manifest(bundle.path, manifest)
        return Bundle(bundle.path, manifest)

    def source(self, candidate: Candidate) -> Bundle:
        """What :meth:`TuningEngine.complete` makes a candidate's bundle of; its manifest is not on disk.

        Raises:
            EngineError: It cannot run here.
        """
        return self._source(candidate, self._folder_of(candidate, draft=False), draft=False)

    def _folder_of(self, candidate: Candidate, *, draft: bool) -> Path:
        return self._folder / "bundles" / f"{candidate.key}{'-draft' if draft else ''}"

    def _source(self, candidate: Candidate, folder: Path, *, draft: bool) -> Bundle:
        """A form's files; where something is built from them they are checked, which says what to expect of that."""
        bundle = self._of_files(candidate, folder, draft=draft)
        if self.engine.file_engine == self.engine.name:
            return bundle
        artifact = self.reference.check(bundle, bundle.manifest.artifacts[0], keep_rejected=True)
        return Bundle(folder, with_artifact(bundle.manifest, artifact))

    def _of_files(self, candidate: Candidate, folder: Path, *, draft: bool) -> Bundle:
        half = self.engine.half_weights and candidate.execution.float_type == "f16"
        made = self._file(candidate.form, half=half, draft=draft)
        golden = self.base.manifest.golden.path
        _link(self.base.path / golden, folder / golden)
        for relative, suffix in self.engine.files.items():
            _link(made.with_suffix(suffix), folder / relative)
        artifact = Artifact(
            engine=self.engine.file_engine,
            precision="tuned",
            files=tuple(file_entry(folder, relative) for relative in self.engine.files),
            rewrite=candidate.form.plan.names(),
            mult_adds=onnx_mult_adds(self._onnx(candidate.form.plan, half=half)),
            max_batch=candidate.max_batch,
            int8=tuple(sorted(candidate.form.int8)),
            execution=candidate.execution,
        )
        return Bundle(folder, replace(self.base.manifest, artifacts=(artifact,), latency=()))

    def _file(self, form: Form, *, half: bool, draft: bool) -> Path:
        """The first of a form's files; others lie beside it."""
        suffix = next(iter(self.engine.files.values()))
        name = f"{form.key}{'-half' if half else ''}{'-draft' if draft else ''}{suffix}"
        source = self._onnx(form.plan, half=half)
        quantization = self._quantization(form, draft=draft)
        return _once(self._folder / "files" / name, lambda partial: self.engine.write(source, partial, quantization))

    def _quantization(self, form: Form, *, draft: bool) -> Quantization | None:
        if not form.int8:
            return None
        batches = self.reference.calibration_batches(self.base.manifest.input)
        return Quantization(
            batches=batches[: DRAFT_CROPS if draft else None],
            keep_float=kept_float(form, self.reference.network.config),
            draft=draft,
        )

    def _onnx(self, plan: RewritePlan, *, half: bool) -> Path:
        """ONNX of a rewrite, in float32 or float16."""
        form = Form(blocks=tuple(plan.blocks.items()), absorb_mean=plan.absorb_mean)
        pixels = self.base.manifest.input.normalised_in == "graph"

        def write(partial: Path) -> None:
            network = rewrite(self.reference.network, plan)
            info = self.reference.checkpoint.info
            export_onnx(Deployable(network, info, "pixels" if pixels else "tensor", half=half), partial)

        return _once(self._folder / "onnx" / f"{form.key}{'-half' if half else ''}.onnx", write)


def _once(path: Path, write: Callable[[Path], None]) -> Path:
    """A file, made whole if it is not there; one that comes with it has the same name and ends in ``.bin``."""
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
