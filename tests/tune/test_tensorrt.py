"""Plans are really built where a TensorRT library is installed, as .ci/run does; timing them takes a GPU."""

from collections import Counter
from dataclasses import replace

import pytest

from reid_edge.cli.tune import show_rehearsal
from reid_edge.cli.tune import tune as tune_command
from reid_edge.errors import EngineError, EngineUnavailableError, TuningError
from reid_edge.export import tensorrt as builder
from reid_edge.export.reference import Reference
from reid_edge.export.tensorrt import why_not_here
from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.runtime.engines import tensorrt as tensorrt_engine
from reid_edge.runtime.engines.tensorrt import Gpu
from reid_edge.tune import tuner
from reid_edge.tune.engines import tensorrt as engine_file
from reid_edge.tune.engines import tuning_engine
from reid_edge.tune.executions import refinements
from reid_edge.tune.forms import Candidate, make_form
from reid_edge.tune.objective import Objective, Score
from reid_edge.tune.race import Standing
from reid_edge.tune.rehearsal import Rehearsed, rehearse
from reid_edge.tune.run import TuneOptions, tune
from reid_edge.tune.search import probes
from reid_edge.tuning_record import Execution
from tests.export.test_exporter import _tiny

needs_library = pytest.mark.skipif(why_not_here() is not None, reason=f"no plan can be built here: {why_not_here()}")


def steps(_text, _steps):
    return lambda count=1: None


def options(out, **changes):
    return TuneOptions(out=out, engine="tensorrt", objective=Objective(crops=3), **changes)


def only(monkeypatch, *names):
    """Try these forms alone: each takes seconds to export."""
    few = lambda config, int8: [probe for probe in probes(config, int8=int8) if probe.name in names]  # noqa: E731
    monkeypatch.setattr(engine_file, "probes", few)


@pytest.fixture
def no_gpu():
    if tensorrt_engine.find_gpu() is not None:
        pytest.skip("there is a GPU here")


@pytest.fixture
def library(monkeypatch):
    """As if one were installed: for what does not use it."""
    monkeypatch.setattr(engine_file, "why_not_here", lambda: None)


def test_without_a_library_the_error_says_what_to_install_and_nothing_is_written(tmp_path, monkeypatch):
    def no_library(name):
        raise ImportError(name)

    monkeypatch.setattr(tensorrt_engine.importlib, "import_module", no_library)
    for act in (tune, rehearse):
        with pytest.raises(EngineUnavailableError, match=r"reid-edge\[tensorrt-rtx\]"):
            act(_tiny(), options(tmp_path / "b"), steps)
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_nothing_is_tuned(tmp_path, library, no_gpu):
    with pytest.raises(TuningError, match=r"CUDA finds no GPU here.*on the device.*reid-edge tune --engine tensorrt"):
        tune([_tiny()], options(tmp_path / "b"), steps)
    assert not list(tmp_path.iterdir())


def test_every_rewrite_is_tried_in_every_precision_that_it_can_have(library):
    engine, config = tuning_engine("tensorrt", 3), _tiny().info.config
    names = {float_type: {probe.name for probe in engine.probes(config, float_type)} for float_type in ("f16", "f32")}
    rewrites = {"plain", "merge", "collapse", "merge+collapse", "batch_gates", "join"}
    assert engine.float_types() == ("f16", "f32")
    assert names["f16"] >= {f"{name} float" for name in rewrites}
    assert names["f32"] >= {f"{name} {level}" for name in rewrites for level in ("float", "int8")} | {"plain int8 ends"}
    assert not any("int8" in name for name in names["f16"])


def test_threads_play_no_part_and_smaller_batches_do(library):
    form = make_form({}, config=_tiny().info.config)
    found = refinements(Candidate("plain", form, Execution(), 32), tuning_engine("tensorrt", 8))
    assert [(candidate.max_batch, candidate.execution) for candidate in found] == [(2, Execution()), (4, Execution())]


def test_a_tuned_file_names_the_gpu_that_it_is_for(library, monkeypatch):
    monkeypatch.setattr(engine_file, "find_gpu", lambda: Gpu("Orin", "8.7"))
    device = tuning_engine("tensorrt", 1).device()
    assert device.gpu == "Orin"
    assert device.differences(replace(device, gpu="Orin Nano")) == ["GPU: there Orin, here Orin Nano"]


@needs_library
def test_without_a_gpu_the_command_builds_prints_and_fails(tmp_path, monkeypatch, no_gpu, capsys):
    only(monkeypatch, "plain float", "plain int8")
    build_plan, asked = builder.build_plan, []

    def second_fails(onnx_path, out, **how):
        asked.append(how)
        if len(asked) == 2:
            raise EngineError("the second does not build")
        return build_plan(onnx_path, out, **how)

    monkeypatch.setattr(builder, "build_plan", second_fails)
    save_checkpoint(_tiny(), tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TuningError, match=r"2 of 3 plans could be built: CUDA finds no GPU here"):
        tune_command(checkpoint=[tmp_path / "tiny.safetensors"], engine="tensorrt", crops=3)
    assert asked == 3 * [{"max_batch": 32, "usual_batch": 3}]
    printed = capsys.readouterr().out
    assert "plain float, f16" in printed
    assert "built, not timed: no GPU here" in printed
    assert "the second does not build" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_the_table_has_a_row_for_what_was_not_built(capsys):
    built = Rehearsed(name="plain float, f16", onnx_bytes=170_000, plan_bytes=3_550_000, seconds=1.7, layers=1399)
    show_rehearsal([built, Rehearsed(name="merge int8", failure="cannot parse")])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["plain", "float,", "f16", "0.17", "3.55", "1.7", "1,399"] in [row[:7] for row in rows]
    assert ["merge", "int8", "–", "–", "–", "–", "cannot", "parse"] in rows


@needs_library
def test_the_fastest_plan_that_keeps_the_accuracy_is_chosen(tmp_path, monkeypatch):
    """The GPU and its times are pretended; the plans are real, and their ONNX files answer for them."""
    only(monkeypatch, "collapse float")
    monkeypatch.setattr(engine_file, "find_gpu", lambda: Gpu("Orin", "8.7"))
    builds: Counter[str] = Counter()
    build_plan, check = builder.build_plan, Reference.check

    def counted(onnx_path, out, **how):
        builds[onnx_path.parent.name] += 1
        return build_plan(onnx_path, out, **how)

    def answered(self, bundle, artifact, **how):
        if artifact.engine != "tensorrt":
            return check(self, bundle, artifact, **how)
        source = bundle.artifact("onnxruntime", artifact.precision)
        return replace(artifact, parity=source.parity, verdict=source.verdict)

    def timed(entrants, engine, _objective, heat, *_):
        assert engine == "tensorrt"
        for bundle, precision in entrants.values():
            assert bundle.artifact("tensorrt", precision).plan is not None
        times = {name: 1.0 if name == "collapse float, f16" else 2.0 for name in entrants}
        return Standing(
            scores={name: Score(ms, ms - 0.1, ms + 0.1) for name, ms in times.items()},
            medians_ms={name: (ms,) * heat.rounds for name, ms in times.items()},
        )

    monkeypatch.setattr(builder, "build_plan", counted)
    monkeypatch.setattr(Reference, "check", answered)
    monkeypatch.setattr(tuner, "run_heat", timed)
    bundle = tune([_tiny()], options(tmp_path / "b"), steps)
    tuned = bundle.artifact("tensorrt", "tuned")
    assert tuned.plan.batches == (1, 3, 32)
    assert "collapse conv2.0" in tuned.rewrite
    assert tuned.execution.float_type == "f16"
    assert bundle.artifact("onnxruntime", "tuned").parity.cosine_min > 0.999
    for entry in bundle.manifest.entries():
        bundle.checked_path(entry)
    tuning = bundle.manifest.tuning
    assert tuning.gains == {f"plain export tensorrt/{name}": 2.0 for name in ("fp32", "fp16", "int8")}
    assert tuning.device.gpu == "Orin"
    # What the plain exports compute can be chosen in the end, whatever the heats took.
    plain = {"plain float", "plain float, f16", "plain int8"}
    assert {trial.name for trial in tuning.trials} == plain | {"collapse float", "collapse float, f16"}
    # Three plain ones into the export's folder; each candidate's own once, though heats and the choice ask for it.
    assert sorted(builds.values()) == [1, 1, 1, 1, 1, 3]
