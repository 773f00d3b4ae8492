import dataclasses
from pathlib import Path

import pytest

from reid_edge.benchmark.assembly import arithmetic_of, is_trained, model_entry, peak_of, run_of
from reid_edge.benchmark.result import Peak, Roofline
from reid_edge.benchmark.timing import Query, Timing, Variant
from reid_edge.manifest import Artifact, FileEntry
from reid_edge.tuning_record import Execution

ARTIFACT = Artifact(
    engine="openvino",
    precision="fp32",
    files=(FileEntry(path="a", size_bytes=700, sha256=""), FileEntry(path="b", size_bytes=300, sha256="")),
    rewrite=("fold",),
    mult_adds=80_000_000,
    max_batch=32,
)
ROOFLINE = Roofline(
    peaks=(
        Peak(arithmetic="fp32", gflops=100, threads=1, how=""),
        Peak(arithmetic="fp32", gflops=160, threads=2, how=""),
        Peak(arithmetic="int8", gflops=640, threads=2, how=""),
        Peak(arithmetic="fp16", gflops=9000, threads=None, how="of the GPU"),
    ),
    bandwidth_gbs=20,
    bandwidth_how="",
)

INT8_BLOCKS = ("conv2.0 ends", "conv2.1 streams", "conv3.0 ends", "conv3.1 ends", "conv4.0 streams", "conv4.1 ends")


def timing(threads=2, crops=8):
    return Timing(
        variant=Variant(bundle=Path("b"), engine="openvino", precision="fp32", threads=threads),
        query=Query(scenario="multi-stream", crops=crops),
        rounds_ms=((16.0,) * 10, (16.0,) * 10),
        warm_up=17,
        settled=True,
        load_ms=100.0,
        first_ms=200.0,
        peak_rss_mb=150.0,
        description="openvino 2026.4",
        execution="",
    )


def test_achieved_gflops_are_two_a_mult_add():
    run = run_of(timing(), 3, ARTIFACT, ROOFLINE)
    # 2 · 80M · 8 crops in 16 ms: 1.28 GFLOP / 0.016 s.
    assert run.gflops == pytest.approx(80)
    assert run.fraction_of_peak == pytest.approx(0.5)
    assert run.crops_per_second == pytest.approx(500)
    assert run.size_bytes == 1000
    assert (run.model, run.scenario, run.crops, run.threads) == (3, "multi-stream", 8, 2)
    assert run.summary.samples == 20


@pytest.mark.parametrize(("threads", "peak"), [(1, 100), (2, 160), (None, 160), (3, None)])
def test_a_variant_is_compared_with_the_peak_of_as_many_threads(threads, peak):
    found = peak_of(ARTIFACT, threads, ROOFLINE, cpus=4)
    assert (found and found.gflops) == peak


def test_threads_beyond_the_cpus_share_them():
    assert peak_of(ARTIFACT, 8, ROOFLINE, cpus=2).gflops == 160
    asked = dataclasses.replace(ROOFLINE, peaks=(Peak(arithmetic="fp32", gflops=150, threads=8, how=""),))
    assert peak_of(ARTIFACT, 8, asked, cpus=2).gflops == 150
    assert peak_of(ARTIFACT, 1, asked, cpus=2) is None


def test_a_tuned_file_runs_with_its_own_threads_unless_others_are_asked_for():
    tuned = dataclasses.replace(ARTIFACT, precision="tuned", execution=Execution(threads=1))
    assert peak_of(tuned, None, ROOFLINE, cpus=4).gflops == 100
    assert peak_of(tuned, 2, ROOFLINE, cpus=4).gflops == 160


def test_other_devices_are_not_compared_with_the_cpus_peak():
    variant = dataclasses.replace(timing().variant, device="GPU")
    on_gpu = dataclasses.replace(timing(), variant=variant)
    assert run_of(timing(), 0, ARTIFACT, ROOFLINE).fraction_of_peak is not None
    assert run_of(on_gpu, 0, ARTIFACT, ROOFLINE).fraction_of_peak is None


def test_without_a_roofline_there_is_no_fraction():
    assert run_of(timing(), 0, ARTIFACT, None).fraction_of_peak is None


@pytest.mark.parametrize(
    ("changes", "arithmetic"),
    [
        ({"precision": "fp16"}, "fp32"),  # CPU engines compute FP16 files in FP32
        ({"precision": "int8"}, "int8"),
        ({"precision": "tuned", "int8": INT8_BLOCKS, "execution": Execution(float_type="bf16")}, "int8"),
        ({"precision": "tuned", "int8": INT8_BLOCKS[1:], "execution": Execution(float_type="bf16")}, "bf16"),
        ({"precision": "tuned", "int8": ("conv1", "fc"), "execution": Execution()}, "fp32"),
        ({"precision": "tuned", "execution": Execution(float_type="bf16")}, "bf16"),
        ({"precision": "fp16", "engine": "tensorrt"}, "fp16"),
        ({"precision": "fp32", "engine": "tensorrt"}, "fp32"),
    ],
)
def test_the_arithmetic_is_that_which_most_is_computed_in(changes, arithmetic):
    assert arithmetic_of(dataclasses.replace(ARTIFACT, **changes)) == arithmetic


def test_a_plan_is_compared_with_the_gpu():
    plan = dataclasses.replace(ARTIFACT, engine="tensorrt", precision="fp16")
    assert peak_of(plan, None, ROOFLINE).gflops == 9000
    assert peak_of(dataclasses.replace(plan, precision="fp32"), None, ROOFLINE) is None


def test_a_bundle_is_described_by_its_manifest(session_bundle):
    model = dataclasses.replace(
        session_bundle.manifest.model, metrics={"market1501/test/mAP": 0.704, "market1501/test/rank1": 0.873}
    )
    bundle = dataclasses.replace(session_bundle, manifest=dataclasses.replace(session_bundle.manifest, model=model))
    artifacts = [bundle.artifact("openvino", "int8")]
    entry = model_entry(bundle, artifacts, {"market1501/openvino/int8/mAP": 70.1})
    # OSNet ×0.25 at 256×128, paper's Table 6: 0.2M parameters, 82.3M mult-adds.
    assert entry.mult_adds == 82_314_880
    assert round(entry.parameters / 1e6, 1) == 0.2
    assert entry.form_mult_adds == {"openvino/int8": 82_314_880}
    assert entry.accuracy == {"market1501/mAP": 70.4, "market1501/R1": 87.3, "market1501/openvino/int8/mAP": 70.1}
    assert (entry.width, entry.size, entry.trained) == (0.25, (256, 128), True)


@pytest.mark.parametrize(("dataset", "trained"), [("none: random weights", False), ("nonesuch-reid", True)])
def test_random_weights_are_reported(session_bundle, dataset, trained):
    manifest = session_bundle.manifest
    model = dataclasses.replace(manifest.model, dataset=dataset)
    bundle = dataclasses.replace(session_bundle, manifest=dataclasses.replace(manifest, model=model))
    assert is_trained(bundle) == trained
    assert model_entry(bundle, [], {}).trained == trained
