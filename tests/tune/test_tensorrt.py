"""Plans are really built where a TensorRT library is installed, as .ci/run does; timing them takes a GPU."""

import sys
from collections import Counter
from dataclasses import replace

import pytest

from reid_edge.cli.tune import show_dry_run
from reid_edge.cli.tune import tune as tune_command
from reid_edge.errors import EngineError, EngineUnavailableError, TuningError
from reid_edge.export import tensorrt as builder
from reid_edge.export.calibration import shipped_set
from reid_edge.export.half_floats import with_half_floats
from reid_edge.export.reference import Reference, make_reference
from reid_edge.export.tensorrt import plan_precisions, why_not_here
from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.osnet.rewrites import Rewrite
from reid_edge.progress import silent
from reid_edge.runtime.cuda import Gpu, find_gpu
from reid_edge.runtime.engines import hardware
from reid_edge.tune import candidates, engines, tuner
from reid_edge.tune.builder import CandidateBuilder
from reid_edge.tune.candidates import Candidate, grid, refinements
from reid_edge.tune.dry_run import DryRunResult, dry_run
from reid_edge.tune.engines import tuning_engines
from reid_edge.tune.measurement import Objective, Score, StageResult
from reid_edge.tune.run import TuneOptions, tune
from reid_edge.tuning_record import Execution
from tests.export.tiny import tiny_checkpoint

needs_library = pytest.mark.skipif(why_not_here() is not None, reason=f"no plan can be built here: {why_not_here()}")


def options(out, **changes):
    return TuneOptions(out=out, engine="tensorrt", objective=Objective(crops=3), **changes)


@pytest.fixture
def no_gpu():
    if find_gpu() is not None:
        pytest.skip("there is a GPU here")


@pytest.fixture
def library(monkeypatch):
    """As if the full one were installed: for what does not use it."""
    monkeypatch.setattr(engines, "why_not_here", lambda: None)
    monkeypatch.setattr(engines, "plan_precisions", lambda: ("fp32", "fp16", "int8"))


def test_without_a_library_the_error_says_what_to_install_and_nothing_is_written(tmp_path, monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    for act in (tune, dry_run):
        with pytest.raises(EngineUnavailableError, match=r"reid-edge\[tensorrt-rtx\]"):
            act(tiny_checkpoint(), options(tmp_path / "b"), silent)
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_nothing_is_tuned(tmp_path, library, no_gpu):
    with pytest.raises(TuningError, match=r"CUDA finds no GPU here.*on the device.*reid-edge tune --engine tensorrt"):
        tune([tiny_checkpoint()], options(tmp_path / "b"), silent)
    assert not list(tmp_path.iterdir())


def test_every_rewrite_is_tried_in_every_precision_that_it_can_have(library):
    (engine,) = tuning_engines("tensorrt", 3)
    found = grid(engine, tiny_checkpoint().info.variant, 32)
    precisions = [(False, "f16"), (True, "f16"), (False, "f32"), (True, "f32")]
    assert [(one.rewrite, one.int8, one.execution.float_type) for one in found] == [
        (rewrite, *precision) for rewrite in candidates.REWRITES for precision in precisions
    ]
    assert {(one.execution.streams, one.execution.threads) for one in found} == {(1, None)}


def test_threads_play_no_part_and_smaller_batches_do(library):
    (engine,) = tuning_engines("tensorrt", 8)
    found = refinements(Candidate(engine="tensorrt", max_batch=32), engine)
    assert [(candidate.max_batch, candidate.execution) for candidate in found] == [(2, Execution()), (4, Execution())]


def test_a_tuned_file_names_the_gpu_that_it_is_for(library, monkeypatch):
    monkeypatch.setattr(hardware, "find_gpu", lambda _index: Gpu("Orin", "8.7"))
    device = tuning_engines("tensorrt", 1)[0].device_class()
    assert device.gpu == "Orin"
    assert device.differences(replace(device, gpu="Orin Nano")) == ["GPU: there Orin, here Orin Nano"]


def test_a_tuned_file_is_for_one_module_of_a_family_and_one_power_mode(library, monkeypatch):
    monkeypatch.setattr(hardware, "find_gpu", lambda _index: Gpu("Orin", "8.7", multiprocessors=16))
    device = replace(tuning_engines("tensorrt", 1)[0].device_class(), power_mode="MAXN (0)")
    there, here = "Orin with 16 multiprocessors", "Orin with 8 multiprocessors"
    assert device.differences(replace(device, gpu=here)) == [f"GPU: there {there}, here {here}"]
    assert device.differences(replace(device, power_mode="15W (2)")) == ["power mode: there MAXN (0), here 15W (2)"]
    earlier = replace(device, power_mode="")
    assert earlier.differences(device) == []


@pytest.mark.slow
def test_int8_with_float16_is_made_of_int8_with_float32_and_judged(session_bundle, checkpoint, library, tmp_path):
    """NNCF quantizes no float16."""
    reference = make_reference(checkpoint, shipped_set(checkpoint, checkpoint.info.size), silent)
    builder = CandidateBuilder(session_bundle, reference, tuning_engines("tensorrt", 3), tmp_path)
    whole, half = (
        builder.build_source(Candidate(engine="tensorrt", int8=True, execution=Execution(float_type=one), max_batch=32))
        for one in ("f32", "f16")
    )
    held = session_bundle.artifact("onnxruntime", "int8").files[0]
    assert [entry.sha256 for entry in whole.manifest.artifacts[0].files] == [held.sha256]
    artifact = half.manifest.artifacts[0]
    assert half.read(artifact.files[0]) == with_half_floats(session_bundle.read(held), "model.onnx")
    assert artifact.verdict.verdict == "accepted"


@needs_library
def test_without_a_gpu_the_command_builds_prints_and_fails(tmp_path, monkeypatch, no_gpu, capsys):
    monkeypatch.setattr(candidates, "REWRITES", (Rewrite(),))
    build_plan, asked = builder.build_plan, []

    def second_fails(onnx, *, name, **how):
        asked.append(how)
        if len(asked) == 2:
            raise EngineError("the second does not build")
        return build_plan(onnx, name=name, **how)

    monkeypatch.setattr(builder, "build_plan", second_fails)
    save_checkpoint(tiny_checkpoint(), tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    plans = len(plan_precisions())
    with pytest.raises(TuningError, match=rf"{plans - 1} of {plans} plans could be built: CUDA finds no GPU here"):
        tune_command(checkpoint=[tmp_path / "tiny.safetensors"], engine="tensorrt", crops=3)
    assert asked == plans * [{"max_batch": 32, "usual_batch": 3}]
    printed = capsys.readouterr().out
    assert "tensorrt, plain, fp16" in printed
    assert "built, not timed: no GPU here" in printed
    assert "the second does not build" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_the_table_has_a_row_for_what_was_not_built(capsys):
    built = DryRunResult(
        name="tensorrt, plain, fp16", onnx_bytes=170_000, plan_bytes=3_550_000, seconds=1.7, layers=1399
    )
    show_dry_run([built, DryRunResult(name="tensorrt, merge, int8", failure="cannot parse")])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["tensorrt,", "plain,", "fp16", "0.17", "3.55", "1.7", "1,399"] in [row[:7] for row in rows]
    assert ["tensorrt,", "merge,", "int8", "–", "–", "–", "–", "cannot", "parse"] in rows


@needs_library
def test_the_fastest_plan_that_keeps_the_accuracy_is_chosen(tmp_path, monkeypatch):
    """The GPU and its times are pretended; the plans are real, and their ONNX files answer for them."""
    monkeypatch.setattr(candidates, "REWRITES", (Rewrite(merge=True),))
    monkeypatch.setattr(engines.TensorRTTuning, "int8_float_types", ())
    monkeypatch.setattr(engines, "find_gpu", lambda: Gpu("Orin", "8.7"))
    monkeypatch.setattr(hardware, "find_gpu", lambda _index: Gpu("Orin", "8.7"))
    builds: Counter[bytes] = Counter()
    build_plan, check = builder.build_plan, Reference.check

    def counted(onnx, **how):
        builds[onnx] += 1
        return build_plan(onnx, **how)

    def answered(self, bundle, artifact, *options, **how):
        if artifact.engine != "tensorrt":
            return check(self, bundle, artifact, *options, **how)
        source = bundle.artifact("onnxruntime", artifact.precision)
        return replace(artifact, parity=source.parity, verdict=source.verdict)

    def timed(files, _objective, stage, **_how):
        for _bundle, artifact in files.values():
            assert artifact.engine == "tensorrt"
            assert artifact.plan is not None
        times = {name: 1.0 if name == "tensorrt, merge, fp16" else 2.0 for name in files}
        return StageResult(
            scores={name: Score(ms, ms - 0.1, ms + 0.1) for name, ms in times.items()},
            medians_ms={name: (ms,) * stage.rounds for name, ms in times.items()},
        )

    monkeypatch.setattr(builder, "build_plan", counted)
    monkeypatch.setattr(Reference, "check", answered)
    monkeypatch.setattr(tuner, "measure", timed)
    bundle = tune([tiny_checkpoint()], options(tmp_path / "b"), silent)
    tuned = bundle.artifact("tensorrt", "tuned")
    assert tuned.plan.batches == (1, 3, 32)
    assert tuned.rewrite == ("fold", "merge")
    assert tuned.execution.float_type == "f16"
    assert bundle.artifact("onnxruntime", "tuned").parity.cosine_min > 0.999
    bundle.check_files()
    tuning = bundle.manifest.tuning
    assert tuning.gains == {f"plain export tensorrt/{name}": 2.0 for name in plan_precisions()}
    assert tuning.device.gpu == "Orin"
    # What the plain exports compute can be chosen in the end, whatever the stages took.
    tried = {f"plain, {precision}" for precision in plan_precisions()} | {"merge, fp32", "merge, fp16"}
    assert {trial.name for trial in tuning.trials} == {f"tensorrt, {name}" for name in tried}
    # The plain ones for the export and for their candidates, the others once, though stages and the choice ask for it.
    assert sorted(builds.values()) == [1, 1] + [2] * len(plan_precisions())
