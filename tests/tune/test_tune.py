"""Real engines, a tiny network, few options."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.bundle import Bundle, open_bundle
from reid_edge.errors import BundleCorruptError, CalibrationError, OutputError, TuningError, UsageError
from reid_edge.export.calibration import calibration_set
from reid_edge.export.reference import make_reference
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines import EngineOptions, choose_engine
from reid_edge.runtime.golden import verify_bundle
from reid_edge.tune import run, search, tuner
from reid_edge.tune.constraint import Kept
from reid_edge.tune.engines import tuning_engine
from reid_edge.tune.engines.openvino import OpenVINOTuning
from reid_edge.tune.forms import Candidate, make_form, parts
from reid_edge.tune.journal import Journal
from reid_edge.tune.objective import Objective
from reid_edge.tune.run import TuneOptions, by_accuracy, tune
from reid_edge.tune.workshop import Workshop
from reid_edge.tuning_record import Execution
from tests.export.test_exporter import _tiny


def steps(_text, _steps):
    return lambda count=1: None


def options(out, **changes):
    return replace(TuneOptions(out=out, objective=Objective(crops=2), budget_minutes=0.3), **changes)


@pytest.fixture(scope="module", autouse=True)
def small_search():
    """Few options: each is an export, and a process for each way to run it."""
    patch = pytest.MonkeyPatch()
    for name in set(search.REWRITES) - {"plain", "collapse"}:
        patch.delitem(search.REWRITES, name)
    patch.setattr(OpenVINOTuning, "float_types", lambda self: ("f32",))
    patch.setattr(OpenVINOTuning, "absorbing", 0)
    patch.setattr(tuner, "FORMS", 2)
    yield
    patch.undo()


class Judge:
    """Random weights need not keep their ranking in INT8: what keeps the accuracy is said here."""

    text = "the test's"

    def __init__(self, keeps):
        self.judge = lambda bundle: Kept(
            passed=keeps(bundle.manifest.artifacts[0]), figures={"mAP": 1.0}, note="mAP lost"
        )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, small_search) -> Bundle:
    """Interrupted before it chose, and then run to the end."""
    out = tmp_path_factory.mktemp("tuned") / "bundle"
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "Agreement", lambda: Judge(lambda artifact: True))
    with pytest.MonkeyPatch().context() as interrupted:
        interrupted.setattr(tuner.Tuner, "_checked", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tune([_tiny()], options(out), steps)
    assert not out.exists()
    patch.setattr(tuner, "profile", measured_again)
    try:
        return tune([_tiny()], options(out), steps)
    finally:
        patch.undo()


def interrupt(*_):
    raise KeyboardInterrupt


def measured_again(*_):
    raise AssertionError("profiled again")


def test_the_bundle_holds_the_plain_export_and_the_tuned_file(tuned):
    names = {artifact.name for artifact in tuned.manifest.artifacts}
    assert names >= {"onnxruntime/fp32", "openvino/fp32", "openvino/tuned"}
    plain = [artifact for artifact in tuned.manifest.artifacts if artifact.precision != "tuned"]
    assert not any(artifact.verdict.reasons for artifact in plain if artifact.verdict)  # rejected INT8 stays behind
    listed = {entry.path for entry in tuned.manifest.entries()} | {"manifest.json"}
    assert {str(path.relative_to(tuned.path)) for path in tuned.path.rglob("*") if path.is_file()} == listed
    assert not list(tuned.path.parent.glob("*.tuning"))
    for entry in tuned.manifest.entries():
        tuned.checked_path(entry)


def test_the_evidence_says_what_was_tried_and_what_was_gained(tuned):
    tuning = tuned.manifest.tuning
    chosen = [trial for trial in tuning.trials if trial.outcome == "chosen"]
    assert len(chosen) == 1
    assert tuning.objective == "p50 of 2 crops, ms"
    assert set(tuning.gains) == {"plain export openvino/fp32", "plain export openvino/int8"}
    assert {trial.name for trial in tuning.trials} >= {"plain float", "plain int8", "plain int8 ends", "collapse int8"}
    assert tuning.device.cpus >= 1
    assert tuned.artifact("openvino", "tuned").execution == chosen[0].execution


def test_auto_takes_the_tuned_file_on_this_device_and_it_is_verified(tuned):
    extractor = Extractor(tuned, engine="auto", precision="auto", cache_dir=None)
    assert extractor.artifact.name == "openvino/tuned"
    crops = [np.full((40, 20, 3), value, np.uint8) for value in (10, 90, 200)]
    assert extractor(crops).shape == (3, 512)
    outcomes = {v.artifact.name: v.outcome for v in verify_bundle(tuned, "auto", "auto", EngineOptions())}
    assert outcomes["openvino/tuned"] == "right"


def test_on_another_class_of_device_auto_warns_and_takes_a_plain_file(tuned, tmp_path, caplog):
    device = replace(tuned.manifest.tuning.device, cpus=64, instruction_sets=("AMX-INT8",))
    elsewhere = replace(tuned.manifest, tuning=replace(tuned.manifest.tuning, device=device))
    artifact, _ = choose_engine(Bundle(tuned.path, elsewhere), "auto", "auto", EngineOptions())
    assert artifact.name == "openvino/fp32"
    assert "tuned on another class of device" in caplog.text
    assert "CPUs: there 64" in caplog.text
    asked, _ = choose_engine(Bundle(tuned.path, elsewhere), "openvino", "tuned", EngineOptions())
    assert asked.name == "openvino/tuned"


@pytest.fixture(scope="module")
def workshop(tuned, small_search, tmp_path_factory):
    """Over the plain export that is there; its files are made once."""
    reference = make_reference(_tiny(), calibration_set(_tiny(), None, steps), steps)
    return Workshop(tuned, reference, tuning_engine("openvino", 2), tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def attempt(workshop, tmp_path):
    """A tuner at its last step."""

    def make(keeps):
        journal = Journal(tmp_path, "task")
        return tuner.Tuner(workshop, Objective(crops=2), Judge(keeps), journal, budget_minutes=0.3, notify=steps)

    return make


def finalists():
    config = _tiny().info.config
    forms = {"plain float": (), "plain int8": parts(config)}
    return [Candidate(name, make_form({}, int8=int8, config=config), Execution(), 32) for name, int8 in forms.items()]


def test_a_form_that_loses_accuracy_is_not_chosen(attempt):
    choice = attempt(lambda artifact: not artifact.int8)._choose(finalists())
    assert choice.bundle.manifest.artifacts[0].int8 == ()
    outcomes = {trial.name: trial.outcome for trial in choice.tuning.trials}
    assert outcomes["plain float"] == "chosen"
    assert outcomes["plain int8"] in ("slower", "inaccurate")


def test_nothing_accurate_is_an_error(attempt):
    with pytest.raises(TuningError, match=r"no form keeps the accuracy \(the test's\): .*plain int8: mAP lost"):
        attempt(lambda artifact: False)._choose(finalists())


def test_no_checkpoint_fast_enough_is_an_error_that_says_what_each_takes(tuned, workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "export_bundle", lambda *_, **__: tuned)
    monkeypatch.setattr(run, "calibration_set", lambda *_: workshop.reference.calibration)
    with pytest.raises(TuningError, match=r"no checkpoint reaches 1e-06 ms here: x0.05 at 32x16 takes .* untuned"):
        tune([_tiny()], options(tmp_path / "bundle", latency_ms=1e-6), steps)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "changes", [{"latency_ms": 0.0}, {"latency_ms": 5.0, "objective": Objective(goal="throughput")}]
)
def test_a_latency_that_bounds_nothing_is_refused(tmp_path, changes):
    with pytest.raises(UsageError, match="--latency-ms"):
        tune([_tiny()], options(tmp_path / "bundle", **changes), steps)
    assert not list(tmp_path.iterdir())


def test_a_missing_calibration_folder_leaves_nothing(tmp_path):
    with pytest.raises(CalibrationError, match="no folder of calibration crops"):
        tune([_tiny()], options(tmp_path / "new" / "bundle", calibration=tmp_path / "nowhere"), steps)
    assert not list(tmp_path.iterdir())


def test_a_manifest_that_asks_for_no_streams_is_refused(tuned, tmp_path):
    path = shutil.copytree(tuned.path, tmp_path / "copy") / "manifest.json"
    path.write_text(path.read_text().replace('"streams": 1', '"streams": 0').replace('"streams": 2', '"streams": 0'))
    with pytest.raises(BundleCorruptError, match=">= 1"):
        open_bundle(path.parent)


def test_the_most_accurate_checkpoint_comes_first():
    small, large = _tiny(0.05), _tiny(0.06)
    assert by_accuracy([small, large]) == [large, small]  # no figures: by work
    better = replace(small, info=replace(small.info, metrics={"market1501/mAP": 80.0}))
    worse = replace(large, info=replace(large.info, metrics={"market1501/mAP": 70.0}))
    assert by_accuracy([worse, better]) == [better, worse]


def test_what_cannot_work_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="several checkpoints need --latency-ms"):
        tune([_tiny(), _tiny(0.06)], options(tmp_path / "bundle"), steps)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    with pytest.raises(OutputError, match="exists already"):
        tune([_tiny()], options(tmp_path / "there"), steps)
