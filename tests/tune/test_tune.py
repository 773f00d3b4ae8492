"""Real engines, a tiny network, few options."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from reid_edge.bundle import Bundle, open_bundle
from reid_edge.cli.tune import readable_labelled
from reid_edge.errors import BundleCorruptError, CalibrationError, OutputError, TuningError, UsageError
from reid_edge.export import calibration as calibration_module
from reid_edge.export.calibration import calibration_set
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.export.native import native_precisions
from reid_edge.export.reference import make_reference
from reid_edge.osnet.rewrites import Rewrite
from reid_edge.progress import silent
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines import EngineOptions, choose_engine
from reid_edge.runtime.golden import verify_bundle
from reid_edge.tune import builder as builder_module
from reid_edge.tune import candidates, run, tuner
from reid_edge.tune.builder import CandidateBuilder
from reid_edge.tune.candidates import Candidate
from reid_edge.tune.constraint import Judgement
from reid_edge.tune.engines import OpenVINOTuning, tuning_engines
from reid_edge.tune.measurement import Objective, Score, StageResult
from reid_edge.tune.result_cache import ResultCache
from reid_edge.tune.run import TuneOptions, by_accuracy, tune
from tests.commands import failure
from tests.export.tiny import tiny_checkpoint


def options(out, **changes):
    return replace(TuneOptions(out=out, engine="openvino", objective=Objective(crops=2), budget_minutes=15), **changes)


@pytest.fixture(scope="module", autouse=True)
def small_grid():
    """Few candidates, each timed briefly: each is a process, and a rewritten one an export; few calibration crops."""
    patch = pytest.MonkeyPatch()
    patch.setattr(calibration_module, "DISTILLED_CALIBRATION", 4)
    patch.setattr(calibration_module, "DISTILLED_HELD_OUT", 12)
    patch.setattr(candidates, "REWRITES", (Rewrite(), Rewrite(batch_gates=True)))
    patch.setattr(OpenVINOTuning, "float_types", lambda self: ("f32",))
    patch.setattr(OpenVINOTuning, "stream_counts", lambda self: (1,))
    for name in ("FIRST_STAGE", "SECOND_STAGE", "FINAL"):
        patch.setattr(tuner, name, replace(getattr(tuner, name), rounds=2, seconds=0.05, share=0.01))
    patch.setattr(tuner, "FINALISTS", 3)
    yield
    patch.undo()


class Judge:
    """Random weights need not keep their ranking in INT8: what keeps the accuracy is said here."""

    text = "the test's"

    def __init__(self, keeps):
        self.judge = lambda bundle: Judgement(
            passed=keeps(bundle.manifest.artifacts[0]), figures={"mAP": 1.0}, note="mAP lost"
        )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, small_grid) -> Bundle:
    """Interrupted before it chose, and then run to the end."""
    out = tmp_path_factory.mktemp("tuned") / "bundle"
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "FeatureAgreement", lambda: Judge(lambda artifact: True))
    with pytest.MonkeyPatch().context() as interrupted:
        interrupted.setattr(tuner.Tuner, "_checked", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tune([tiny_checkpoint()], options(out), silent)
    assert not out.exists()
    measure = tuner.measure
    patch.setattr(
        tuner, "measure", lambda files, objective, stage, **how: final_only(measure, files, objective, stage, how)
    )
    patch.setattr(run, "export_bundle", exported_again)
    try:
        return tune([tiny_checkpoint()], options(out), silent)
    finally:
        patch.undo()


def interrupt(*_):
    raise KeyboardInterrupt


def final_only(measure, files, objective, stage, how):
    assert stage.name == "final", "measured again"
    return measure(files, objective, stage, **how)


def exported_again(*_, **__):
    raise AssertionError("exported again")


@pytest.mark.slow
def test_the_bundle_holds_the_plain_export_and_the_tuned_file(tuned):
    names = {artifact.name for artifact in tuned.manifest.artifacts}
    assert names >= {"onnxruntime/fp32", "openvino/fp32", "openvino/tuned"}
    plain = [artifact for artifact in tuned.manifest.artifacts if artifact.precision != "tuned"]
    assert not any(artifact.verdict.reasons for artifact in plain if artifact.verdict)  # rejected INT8 stays behind
    listed = {entry.path for entry in tuned.manifest.entries()} | {"manifest.json"}
    assert {str(path.relative_to(tuned.path)) for path in tuned.path.rglob("*") if path.is_file()} == listed
    assert not list(tuned.path.parent.glob("*.tuning"))
    for entry in tuned.manifest.entries():
        tuned.read(entry)


@pytest.mark.slow
def test_the_evidence_says_what_was_tried_and_what_was_gained(tuned):
    tuning = tuned.manifest.tuning
    chosen = [trial for trial in tuning.trials if trial.outcome == "chosen"]
    assert len(chosen) == 1
    assert tuning.objective == "p50 of 2 crops, ms"
    assert set(tuning.gains) == {"plain export openvino/fp32", "plain export openvino/int8"}
    grid = {f"openvino, {rewrite}, {how}" for rewrite in ("plain", "batch_gates") for how in ("fp32", "int8")}
    assert {trial.name for trial in tuning.trials} >= grid
    assert all(trial.heat for trial in tuning.trials if trial.objective is not None)
    assert tuning.device.cpus >= 1
    assert tuned.artifact("openvino", "tuned").execution == chosen[0].execution


@pytest.mark.slow
def test_auto_takes_the_tuned_file_on_this_device_and_it_is_verified(tuned):
    extractor = Extractor(tuned, engine="auto", precision="auto", cache_dir=None)
    assert extractor.artifact.name == "openvino/tuned"
    crops = [np.full((40, 20, 3), value, np.uint8) for value in (10, 90, 200)]
    assert extractor(crops).shape == (3, 512)
    outcomes = {v.artifact.name: v.outcome for v in verify_bundle(tuned, "auto", "auto", EngineOptions())}
    assert outcomes["openvino/tuned"] == "right"


@pytest.mark.slow
def test_on_another_class_of_device_auto_warns_and_takes_a_plain_file(tuned, tmp_path, caplog):
    device = replace(tuned.manifest.tuning.device, cpus=64, instruction_sets=("AMX-INT8",))
    elsewhere = replace(tuned.manifest, tuning=replace(tuned.manifest.tuning, device=device))
    artifact, *_ = choose_engine(Bundle(tuned.path, elsewhere), "auto", "auto", EngineOptions())
    assert artifact.name == "openvino/fp32"
    assert "tuned on another class of device" in caplog.text
    assert "CPUs: there 64" in caplog.text
    asked, *_ = choose_engine(Bundle(tuned.path, elsewhere), "openvino", "tuned", EngineOptions())
    assert asked.name == "openvino/tuned"


@pytest.fixture(scope="module")
def calibration(small_grid):
    return calibration_set(tiny_checkpoint(), None, silent)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, calibration) -> Bundle:
    """The plain export, with INT8 whatever its verdict."""
    options = ExportOptions(
        out=tmp_path_factory.mktemp("exported") / "plain", formats=("openvino",), precisions=("fp32", "int8"),
        needed_onnx_only=True, keep_rejected=True, time_files=False,
    )  # fmt: skip
    return export_bundle(tiny_checkpoint(), options, silent, calibration=calibration)


@pytest.fixture(scope="module")
def builder(exported, calibration, tmp_path_factory):
    """Over the plain export; its files are made once."""
    reference = make_reference(tiny_checkpoint(), calibration, silent)
    folder = tmp_path_factory.mktemp("candidates")
    return CandidateBuilder(exported, reference, tuning_engines("openvino", 2), folder)


@pytest.fixture
def make_tuner(builder, tmp_path):
    def make(keeps, **how):
        cache = ResultCache(tmp_path, "task")
        return tuner.Tuner(
            builder, Objective(crops=2), Judge(keeps), cache, **{"budget_minutes": 15, "notify": silent, **how}
        )

    return make


FINALISTS = [Candidate(engine="openvino", int8=int8, max_batch=32) for int8 in (False, True)]


@pytest.mark.slow
def test_a_candidate_that_loses_accuracy_is_not_chosen(make_tuner):
    choice = make_tuner(lambda artifact: not artifact.int8).choose(FINALISTS)
    assert choice.bundle.manifest.artifacts[0].int8 == ()
    outcomes = {trial.name: trial.outcome for trial in choice.tuning.trials}
    assert outcomes["openvino, plain, fp32"] == "chosen"
    assert outcomes["openvino, plain, int8"] in ("slower", "inaccurate")


@pytest.mark.slow
def test_nothing_accurate_is_an_error(make_tuner):
    with pytest.raises(TuningError, match=r"no candidate keeps the accuracy \(the test's\): .*plain, int8: mAP lost"):
        make_tuner(lambda artifact: False).choose(FINALISTS)


@pytest.mark.slow
def test_without_time_only_what_the_plain_exports_compute_is_tried_and_the_rest_is_recorded(make_tuner, monkeypatch):
    monkeypatch.setattr(builder_module, "export_onnx", lambda *_: pytest.fail("exported"))
    choice = make_tuner(lambda artifact: True, budget_minutes=1e-6).run()
    outcomes = {trial.name: (trial.outcome, trial.note) for trial in choice.tuning.trials}
    assert outcomes["openvino, batch_gates, fp32"] == ("pruned", "no time was left to time it")
    assert next(name for name, (outcome, _) in outcomes.items() if outcome == "chosen").startswith("openvino, plain")
    assert set(choice.tuning.gains) == {"plain export openvino/fp32", "plain export openvino/int8"}


@pytest.mark.slow
def test_plain_candidates_run_the_files_of_the_plain_export(builder, exported):
    for candidate, precision in zip(FINALISTS, ("fp32", "int8"), strict=True):
        assert builder.is_quick(candidate)
        held = exported.artifact("openvino", precision).files
        made = builder.build(candidate).manifest.artifacts[0].files
        assert [entry.sha256 for entry in made] == [entry.sha256 for entry in held]


@pytest.mark.slow
def test_no_checkpoint_fast_enough_is_an_error_that_says_what_each_takes(exported, builder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "export_bundle", lambda *_, **__: exported)
    monkeypatch.setattr(run, "calibration_set", lambda *_, **__: builder.reference.calibration)
    with pytest.raises(TuningError, match=r"no checkpoint reaches 1e-06 ms here: x0.05 at 32x16 takes .* untuned"):
        tune([tiny_checkpoint()], options(tmp_path / "bundle", latency_ms=1e-6), silent)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "changes", [{"latency_ms": 0.0}, {"latency_ms": 5.0, "objective": Objective(goal="throughput")}]
)
def test_a_latency_that_bounds_nothing_is_refused(tmp_path, changes):
    with pytest.raises(UsageError, match="--latency-ms"):
        tune([tiny_checkpoint()], options(tmp_path / "bundle", **changes), silent)
    assert not list(tmp_path.iterdir())


def test_a_missing_calibration_folder_leaves_nothing(tmp_path):
    with pytest.raises(CalibrationError, match="no folder of calibration crops"):
        tune([tiny_checkpoint()], options(tmp_path / "new" / "bundle", calibration=tmp_path / "nowhere"), silent)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_manifest_that_asks_for_no_streams_is_refused(tuned, tmp_path):
    path = shutil.copytree(tuned.path, tmp_path / "copy") / "manifest.json"
    path.write_text(path.read_text().replace('"streams": 1', '"streams": 0').replace('"streams": 2', '"streams": 0'))
    with pytest.raises(BundleCorruptError, match=">= 1"):
        open_bundle(path.parent)


def test_the_most_accurate_checkpoint_comes_first():
    small, large = tiny_checkpoint(0.05), tiny_checkpoint(0.06)
    assert by_accuracy([small, large]) == [large, small]  # no figures: by work
    better = replace(small, info=replace(small.info, metrics={"market1501/mAP": 80.0}))
    worse = replace(large, info=replace(large.info, metrics={"market1501/mAP": 70.0}))
    assert by_accuracy([worse, better]) == [better, worse]


def test_what_cannot_work_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="several checkpoints need --latency-ms"):
        tune([tiny_checkpoint(), tiny_checkpoint(0.06)], options(tmp_path / "bundle"), silent)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    with pytest.raises(OutputError, match="exists already"):
        tune([tiny_checkpoint()], options(tmp_path / "there"), silent)


def test_engines_of_the_cpu_are_compared_and_the_fastest_is_in_the_bundle(tmp_path, monkeypatch):
    """The times are pretended; the files are real."""
    monkeypatch.setattr(candidates, "REWRITES", (Rewrite(),))
    monkeypatch.setattr(run, "FeatureAgreement", lambda: Judge(lambda artifact: True))

    def timed(files, _objective, stage, **_how):
        times = {name: 1.0 if artifact.engine == "onnxruntime" else 2.0 for name, (_, artifact) in files.items()}
        times["onnxruntime, plain, int8"] = 4.0
        times = {name: ms for name, ms in times.items() if name in files}
        return StageResult(
            scores={name: Score(ms, ms - 0.1, ms + 0.1) for name, ms in times.items()},
            medians_ms={name: (ms,) * stage.rounds for name, ms in times.items()},
        )

    monkeypatch.setattr(tuner, "measure", timed)
    bundle = tune([tiny_checkpoint()], options(tmp_path / "bundle", engine="cpu"), silent)
    assert {"onnxruntime/tuned", "onnxruntime/fp32", "openvino/fp32"} <= {one.name for one in bundle.manifest.artifacts}
    assert bundle.manifest.tuning.gains["plain export openvino/fp32"] == 2.0
    here = {"native", "openvino", "onnxruntime"} if native_precisions() else {"openvino", "onnxruntime"}
    assert {trial.engine for trial in bundle.manifest.tuning.trials} == here
    assert Extractor(bundle, cache_dir=None).artifact.name == "onnxruntime/tuned"


def test_a_bundle_tuned_for_another_device_is_checked_and_taken_there(tmp_path, monkeypatch):
    """AUTO stands for a GPU; the times are pretended, the files and the checks are real."""
    monkeypatch.setattr(candidates, "REWRITES", (Rewrite(),))
    monkeypatch.setattr(run, "FeatureAgreement", lambda: Judge(lambda artifact: not artifact.int8))
    devices = set()

    def timed(files, _objective, stage, *, device, **_how):
        devices.add(device)
        return StageResult(
            scores={name: Score(1.0, 0.9, 1.1) for name in files},
            medians_ms=dict.fromkeys(files, (1.0,) * stage.rounds),
        )

    monkeypatch.setattr(tuner, "measure", timed)
    bundle = tune([tiny_checkpoint()], options(tmp_path / "bundle", engine="cpu", device="AUTO"), silent)
    assert devices == {"AUTO"}
    assert bundle.manifest.tuning.device.device == "AUTO"
    assert bundle.artifact("openvino", "tuned").parity.engine.endswith("AUTO")
    assert set(bundle.manifest.tuning.gains) == {f"plain export openvino/{name}" for name in ("fp32", "fp16", "int8")}
    assert Extractor(bundle, device="AUTO", cache_dir=None).artifact.name == "openvino/tuned"
    assert Extractor(bundle, engine="openvino", cache_dir=None).artifact.name == "openvino/fp32"


def test_a_damaged_image_of_the_dataset_ends_it_at_once_or_is_left_out_and_counted(tmp_path, capsys):
    for folder, camera in (("query", 1), ("bounding_box_test", 2)):
        (tmp_path / folder).mkdir()
        for identity in (1, 2):
            name = f"{identity:04}_c{camera}s1_000001_00.png"
            cv2.imwrite(str(tmp_path / folder / name), np.zeros((64, 32, 3), np.uint8))
    damaged = tmp_path / "bounding_box_test" / "0002_c2s1_000001_00.png"
    damaged.write_bytes(b"")
    message = failure("tune", "--width", 0.25, "--root", tmp_path, "--partial", "--out", tmp_path / "out")
    assert damaged.name in message and "--skip-bad" in message
    readable = readable_labelled(tmp_path, partial=True, skip_bad=True)
    assert [len(readable[split]) for split in ("query", "gallery")] == [2, 1]
    assert f"1 of 4 images left out, unreadable: {damaged}" in " ".join(capsys.readouterr().err.split())
