"""``reid-edge benchmark`` as a person types it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jsonschema
import msgspec
import numpy as np
import pytest

from reid_edge.benchmark.result import BenchmarkResult
from tests.commands import failure, success
from tests.conftest import random_crops

SCHEMA = Path(__file__).parents[2] / "docs" / "benchmark.schema.json"
#: As short as can be: what is measured is of no interest here.
QUICK = ("--rounds", "2", "--seconds", "0.05", "--budget-seconds", "6", "--no-roofline")


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.modules['nncf'] = None"


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Five people, each once in the query and once, the same picture, in the gallery."""
    root = tmp_path_factory.mktemp("market")
    rng = np.random.default_rng(0)
    for folder in ("query", "bounding_box_test"):
        (root / folder).mkdir()
    for identity in range(1, 6):
        crop = random_crops(rng, 1)[0]
        cv2.imwrite(str(root / "query" / f"{identity:04}_c1s1_000001_00.jpg"), crop)
        cv2.imwrite(str(root / "bounding_box_test" / f"{identity:04}_c2s1_000001_00.jpg"), crop)
    return root


@pytest.fixture(scope="module")
def benchmarked(session_bundle, market, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "here.json"
    variants = ("--precision", "int8", "--threads", "1", "--crops", "1,2", "--isa", "avx2")
    script = f"{WITHOUT_TORCH}; from reid_edge.__main__ import main; main()"
    # In a process of its own, since --isa limits all of oneDNN.
    command = [sys.executable, "-c", script, "benchmark", session_bundle.path, *variants, *QUICK]
    command += ["--root", market, "--partial", "--out", out]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run, out


@pytest.mark.slow
def test_the_result_fits_its_schema(benchmarked):
    _, out = benchmarked
    jsonschema.validate(json.loads(out.read_text()), json.loads(SCHEMA.read_text()))
    assert [path.name for path in out.parent.iterdir()] == ["here.json"]


@pytest.mark.slow
def test_it_runs_without_torch(benchmarked):
    run, _ = benchmarked  # in which neither torch nor NNCF can be imported
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_every_variant_is_timed_in_every_scenario_with_every_sample_kept(benchmarked):
    result = msgspec.json.decode(benchmarked[1].read_bytes(), type=BenchmarkResult)
    found = {(run.engine, run.precision, run.scenario, run.crops) for run in result.runs}
    queries = [("single-stream", 1), ("multi-stream", 2), ("offline", 32), ("end-to-end", 1), ("end-to-end", 2)]
    assert found == {(engine, "int8", *query) for engine in ("openvino", "onnxruntime") for query in queries}
    assert len(result.runs) == 10
    for run in result.runs:
        samples = sorted(sample for samples in run.rounds_ms for sample in samples)
        assert len(run.rounds_ms) == 2
        assert run.summary.samples == len(samples)
        assert run.summary.min == samples[0] <= run.summary.p50 <= run.summary.p99 <= samples[-1]
        assert run.crops_per_second * run.summary.p50 == pytest.approx(1000 * run.crops)
        assert run.gflops * run.summary.p50 == pytest.approx(2 * 82.31488 * run.crops)
        assert (run.threads, run.fraction_of_peak) == (1, None)


@pytest.mark.slow
def test_the_result_says_on_what_and_how(benchmarked, session_bundle):
    result = msgspec.json.decode(benchmarked[1].read_bytes(), type=BenchmarkResult)
    assert result.models[0].model_hash == session_bundle.manifest.model_hash
    assert result.models[0].mult_adds == 82_314_880
    assert result.protocol["rounds"] == 2
    assert "benchmark" in result.command
    assert "--isa avx2" in result.command
    assert result.device.isa_limit == "AVX2"
    assert any("ONEDNN_MAX_CPU_ISA" in note for note in result.notes)
    assert result.before.at <= result.after.at
    assert result.roofline is None


@pytest.mark.slow
def test_accuracy_is_measured_for_each_variant(benchmarked):
    accuracy = msgspec.json.decode(benchmarked[1].read_bytes(), type=BenchmarkResult).models[0].accuracy
    for variant in ("openvino/int8", "onnxruntime/int8"):
        assert accuracy[f"market1501/{variant}/mAP"] == 100  # the same picture twice
        assert accuracy[f"market1501/{variant}/R1"] == 100


@pytest.mark.slow
def test_the_table_can_be_read_in_a_pipe(benchmarked):
    run, _ = benchmarked
    lines = run.stdout.splitlines()
    rows = [line.split() for line in lines if "onnxruntime/int8, 1 thread" in line]
    assert len(rows) == 6  # five queries, and what the variant takes besides
    assert sum("openvino/int8, 1 thread" in line for line in lines) == 6
    assert "82.3M mult-adds" in run.stdout
    assert "note: " in run.stdout


def test_a_variant_that_cannot_run_is_listed_and_the_others_are_timed(bundle_copy, tmp_path):
    (bundle_copy.path / "model.int8.onnx").write_bytes(b"broken")
    variants = ("--engine", "onnxruntime", "--scenario", "single-stream")
    printed = success("benchmark", bundle_copy.path, *variants, *QUICK, "--out", tmp_path / "r.json")
    result = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=BenchmarkResult)
    assert {run.precision for run in result.runs} == {"fp32", "fp16"}
    assert [one.artifact for one in result.not_run] == ["onnxruntime/int8"]
    assert "BundleCorruptError" in result.not_run[0].reason
    assert "not run: copy onnxruntime/int8: BundleCorruptError" in " ".join(printed.split())


def test_when_nothing_runs_it_fails_with_the_reasons(bundle_copy, tmp_path):
    (bundle_copy.path / "model.onnx").unlink()
    variants = ("--engine", "onnxruntime", "--precision", "fp32", "--out", tmp_path / "r.json")
    message = failure("benchmark", bundle_copy.path, *variants, *QUICK)
    assert "nothing could be timed: onnxruntime/fp32 of copy: BundleCorruptError" in " ".join(message.split())
    assert not (tmp_path / "r.json").exists()


def test_a_damaged_image_ends_it_before_anything_is_timed_or_is_left_out_and_noted(session_bundle, market, tmp_path):
    root = tmp_path / "market"
    shutil.copytree(market, root)
    (root / "bounding_box_test" / "0000_c2s1_000001_00.jpg").write_bytes(b"\xff\xd8\xff")
    options = (session_bundle.path, "--engine", "onnxruntime", "--precision", "fp32", "--scenario", "single-stream")
    given = ("benchmark", *options, *QUICK, "--root", root, "--partial")
    message = failure(*given)
    assert "0000_c2s1_000001_00.jpg" in message and "--skip-bad" in message and "timing" not in message
    assert "1 of 11 images left out, unreadable" in " ".join(success(*given, "--skip-bad").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no bundle to benchmark"),
        (["nowhere"], "nowhere is not a bundle"),
        (["BUNDLE", "BUNDLE"], "named twice"),
        (
            ["BUNDLE", "--engine", "torch"],
            "--engine takes one or more of native,onnxruntime,openvino,tensorrt, got 'torch'",
        ),
        (["BUNDLE", "--engine", ""], "--engine takes"),
        (["BUNDLE", "--precision", "tuned", "--engine", "openvino"], "holds nothing of openvino × tuned"),
        (["BUNDLE", "--scenario", "server"], "--scenario takes one or more of single-stream,"),
        (["BUNDLE", "--threads", "two"], "--threads takes whole numbers"),
        (["BUNDLE", "--threads", "0"], "threads must be from 1"),
        (["BUNDLE", "--crops", "1.5"], "--crops takes whole numbers"),
        (["BUNDLE", "--crops", "1", "--scenario", "multi-stream"], "more than one crop"),
        (["BUNDLE", "--isa", "MMX"], "--isa takes one of SSE41, "),
        (["BUNDLE", "--out", "."], ". is a folder; give a file name"),
        (["BUNDLE", "--out", "none/r.json"], "none is not a writable folder"),
        (["BUNDLE", "--root", "."], "does not hold Market-1501"),
        (["BUNDLE", "--checkpoint", "x.pth"], "--grid"),
        (["BUNDLE", "--out", 255 * "a" + ".json"], "File name too long; use another name"),
        (["nope", "--grid", "g1"], "nope is not a bundle"),
        (["--grid", "g1", "--engine", "tensorrt"], "holds nothing of tensorrt × "),
        (["--grid", "g1", "--root", "nowhere"], "nowhere"),
        (["g1/osnet_x1_256x128", "--grid", "g1"], "named twice"),
    ],
)
def test_bad_input_gives_one_message_before_any_work(tmp_path, session_bundle, arguments, message):
    given = [str(session_bundle.path) if one == "BUNDLE" else one for one in arguments]
    assert message in failure("benchmark", *given, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_result_is_replaced_only_on_purpose(benchmarked, session_bundle):
    before = benchmarked[1].read_bytes()
    assert "exists already; use --force" in failure("benchmark", session_bundle.path, "--out", benchmarked[1])
    assert benchmarked[1].read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_ends_the_workers_and_leaves_nothing(session_bundle, tmp_path, number):
    command = [
        sys.executable,
        "-c",
        "from reid_edge.__main__ import main; main()",
        "benchmark",
        str(session_bundle.path),
    ]
    command += ["--engine", "onnxruntime", "--scenario", "single-stream", "--rounds", "1000", "--no-roofline"]
    command += ["--out", str(tmp_path / "r.json")]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(workers := children(run.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(workers) >= 2
    run.send_signal(number)
    assert run.wait(20) != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list(tmp_path.iterdir())


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in text.read_text().split()] if text.exists() else []
