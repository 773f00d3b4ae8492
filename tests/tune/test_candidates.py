from dataclasses import replace

import pytest

from reid_edge.errors import EngineUnavailableError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.osnet.rewrites import Rewrite
from reid_edge.tune import engines
from reid_edge.tune.candidates import Candidate, grid, int8_parts, plain_candidates, refinements
from reid_edge.tune.engines import OpenVINOTuning, tuning_engines
from reid_edge.tuning_record import DeviceClass, Execution
from tests.runtime.native.networks import needs_library

PLAIN = Candidate(engine="openvino", max_batch=32)


@pytest.fixture
def device(monkeypatch):
    """Four CPUs with bfloat16, wherever the test runs."""
    four = DeviceClass(cpu="a CPU", instruction_sets=(), cpus=4)
    monkeypatch.setattr(engines, "device_class_of", lambda _engine, device: replace(four, device=device))
    monkeypatch.setattr(engines, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(engines, "native_precisions", lambda: ("fp32", "int8"))
    monkeypatch.setattr(engines, "available_kernels", lambda precision: ("avx512vnni",))
    return four


def grid_of(engine, crops, variant=NetworkVariant()):  # noqa: B008 - frozen
    return [one for each in tuning_engines(engine, crops) for one in grid(each, variant, 32)]


def test_the_grid_has_every_rewrite_precision_float_type_and_number_of_streams(device):
    found = grid_of("openvino", 8)
    assert {one.rewrite for one in found} == {
        Rewrite(),
        Rewrite(merge=True),
        Rewrite(batch_gates=True),
        Rewrite(join=True),
        Rewrite(merge=True, batch_gates=True),
        Rewrite(batch_gates=True, join=True),
    }
    assert {(one.int8, one.execution.float_type) for one in found} == {
        (False, "f32"),
        (True, "f32"),
        (False, "bf16"),
        (True, "bf16"),
    }
    assert {one.execution.streams for one in found} == {1, 2, 4}
    assert len(found) == 6 * 4 * 3
    assert len({one.name for one in found}) == len({one.key for one in found}) == len(found)


def test_what_costs_least_to_try_comes_first(device):
    found = grid_of("openvino", 2)
    assert [one.name for one in found[:4]] == [
        "openvino, plain, fp32",
        "openvino, plain, int8",
        "openvino, plain, bf16",
        "openvino, plain, int8 + bf16",
    ]
    assert found[4].name == "openvino, plain, fp32, 2 streams"
    assert [bool(one.rewrite.names[1:]) for one in found] == sorted(bool(one.rewrite.names[1:]) for one in found)


def test_streams_divide_a_query_evenly(device):
    assert {one.execution.streams for one in grid_of("openvino", 1)} == {1}
    assert {one.execution.streams for one in grid_of("openvino", 6)} == {1, 2}


def test_a_cpu_that_stands_in_for_an_older_one_has_float32_alone(device, monkeypatch):
    monkeypatch.setattr(engines, "device_class_of", lambda _engine, _device: replace(device, isa_limit="AVX2"))
    assert {one.execution.float_type for one in grid_of("openvino", 1)} == {"f32"}


@pytest.mark.parametrize(
    ("variant", "rewrites"),
    [
        (NetworkVariant(streams=(2,)), {Rewrite(), Rewrite(join=True)}),
        (NetworkVariant(fusion="addition"), {Rewrite(), Rewrite(merge=True), Rewrite(join=True)}),
    ],
)
def test_rewrites_that_do_not_apply_to_a_variant_are_left_out(device, variant, rewrites):
    assert {one.rewrite for one in grid_of("openvino", 1, variant)} == rewrites


def test_onnx_runtime_is_tried_in_float_and_its_plain_int8_is_a_finalist(device):
    (engine,) = tuning_engines("onnxruntime", 8)
    assert not any(one.int8 for one in grid(engine, NetworkVariant(), 32))
    assert [one.name for one in plain_candidates(engine, 32)] == [
        "onnxruntime, plain, fp32",
        "onnxruntime, plain, int8",
    ]


def test_the_engines_of_a_cpu_can_be_compared(device):
    assert {one.engine for one in grid_of("cpu", 8)} == {"native", "openvino", "onnxruntime"}


def test_the_cpu_is_tuned_without_the_native_engine_where_it_is_not_built(device, monkeypatch):
    def missing(_precision):
        raise EngineUnavailableError("not built")

    monkeypatch.setattr(engines, "native_precisions", tuple)
    monkeypatch.setattr(engines, "available_kernels", missing)
    assert {one.engine for one in grid_of("cpu", 8)} == {"openvino", "onnxruntime"}


def test_the_native_engine_is_tuned_without_rewrites(device):
    assert [one.name for one in grid_of("native", 8)] == [
        "native, plain, fp32",
        "native, plain, int8",
        "native, plain, bf16",
    ]


@needs_library
def test_the_native_engine_says_which_networks_it_does_not_take(device):
    (engine,) = tuning_engines("native", 8)
    assert engine.why_not(CheckpointInfo(width=0.25)) == ""
    nine = CheckpointInfo(width=0.25, variant=NetworkVariant(streams=(1,) * 9))
    assert "at most 8 streams" in engine.why_not(nine)
    assert OpenVINOTuning(8).why_not(nine) == ""


def test_a_candidate_is_refined_by_threads_and_by_smaller_batches(device):
    found = [one.name for one in refinements(PLAIN, OpenVINOTuning(8))]
    assert found == [
        f"openvino, plain, fp32, {how}"
        for how in ("threads: 1", "threads: 2", "threads: 4", "batches of 2", "batches of 4")
    ]
    streams = replace(PLAIN, execution=Execution(streams=2))
    assert [one.execution.threads for one in refinements(streams, OpenVINOTuning(4))] == [2, None]


def test_simpler_candidates_come_before_those_that_gain_as_much():
    ordered = [
        PLAIN,
        replace(PLAIN, execution=Execution(threads=2)),
        replace(PLAIN, execution=Execution(streams=2)),
        replace(PLAIN, rewrite=Rewrite(merge=True)),
        replace(PLAIN, execution=Execution(float_type="bf16")),
        replace(PLAIN, int8=True),
    ]
    shuffled = [ordered[number] for number in (3, 5, 0, 4, 2, 1)]
    assert sorted(shuffled, key=lambda one: one.complexity) == ordered


def test_a_name_says_all_that_was_chosen():
    execution = Execution(float_type="bf16", streams=2, threads=4)
    one = replace(PLAIN, rewrite=Rewrite(merge=True, batch_gates=True), int8=True, execution=execution, max_batch=8)
    assert one.name == "openvino, merge + batch_gates, int8 + bf16, 2 streams, threads: 4, batches of 8"


def test_int8_is_listed_by_layer_and_bottleneck():
    """The benchmark finds by it which peak a file is held against."""
    assert int8_parts(OSNetConfig(variant=NetworkVariant(blocks=(1, 2, 1)))) == (
        "conv1", "transition2", "transition3", "conv5", "fc", "conv2.0", "conv3.0", "conv3.1", "conv4.0",
    )  # fmt: skip
