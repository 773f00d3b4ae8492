import pytest

from reid_edge.benchmark.options import BenchmarkOptions
from reid_edge.benchmark.timing import Query
from reid_edge.errors import EngineUnavailableError, UsageError


def test_by_default_each_scenario_is_asked_with_the_crops_it_takes():
    assert [(query.scenario, query.crops) for query in BenchmarkOptions().queries()] == [
        ("single-stream", 1),
        ("multi-stream", 8),
        ("offline", 32),
        ("end-to-end", 1),
        ("end-to-end", 8),
    ]


def test_nothing_is_asked_twice():
    options = BenchmarkOptions(scenarios=("multi-stream", "multi-stream"), crops=(4, 2, 4))
    assert options.queries() == (Query(scenario="multi-stream", crops=4), Query(scenario="multi-stream", crops=2))


def test_each_file_is_a_variant_for_each_number_of_threads(session_bundle):
    options = BenchmarkOptions(engines=("openvino",), precisions=("int8", "fp32"), threads=(1, 2, 1))
    found = [(one.engine, one.precision, one.threads) for one in options.variants(session_bundle)]
    assert found == [
        ("openvino", "fp32", 1),
        ("openvino", "fp32", 2),
        ("openvino", "int8", 1),
        ("openvino", "int8", 2),
    ]


def test_every_variant_runs_on_the_device_asked_for(session_bundle):
    variants = BenchmarkOptions(engines=("openvino",), precisions=("fp16",), device="GPU.1").variants(session_bundle)
    assert [one.device for one in variants] == ["GPU.1"]
    assert variants[0].name == f"openvino/fp16 of {session_bundle.path.name} on GPU.1"


def test_all_that_a_bundle_holds_is_timed_if_nothing_is_named(session_bundle):
    assert BenchmarkOptions().artifacts(session_bundle) == list(session_bundle.manifest.artifacts)


def test_a_bundle_that_holds_nothing_of_it_is_named_with_what_it_holds(session_bundle):
    with pytest.raises(EngineUnavailableError, match=r"nothing of openvino × tuned; it holds onnxruntime/fp32, "):
        BenchmarkOptions(engines=("openvino",), precisions=("tuned",)).artifacts(session_bundle)


def test_more_bundles_get_more_time():
    assert [BenchmarkOptions().budget(count) for count in (1, 2, 16)] == [150, 180, 600]
    assert BenchmarkOptions(budget_seconds=20).budget(16) == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crops": ()}, "crops must be from 1 to 1024, got none"),
        ({"crops": (0, 4)}, "crops must be from 1 to 1024, got 0, 4"),
        ({"crops": (1,), "scenarios": ("single-stream", "multi-stream")}, "multi-stream needs more than one crop"),
        ({"rounds": 0}, "rounds must be from 1"),
        ({"seconds": 0}, "rounds must be from 1"),
        ({"seconds": float("nan")}, "rounds must be from 1"),
        ({"budget_seconds": -1}, "budget"),
        ({"budget_seconds": float("nan")}, "budget"),
        ({"threads": (0,)}, "threads must be from 1 to 512, got 0"),
        ({"threads": ()}, "threads must be from 1 to 512, got none"),
    ],
)
def test_numbers_out_of_range_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        BenchmarkOptions(**given)
