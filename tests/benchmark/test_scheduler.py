import contextlib
import time

import pytest

from reid_edge.benchmark import session as session_module
from reid_edge.benchmark.protocol import Timed
from reid_edge.benchmark.scheduler import MOST_WORKERS, Clock, step_count, time_variants, workers_at_once
from reid_edge.benchmark.session import Session, energy_of
from reid_edge.benchmark.timing import Query, Variant
from reid_edge.system.energy import Reading
from tests.system.recorded_trees import DOCKER_V2, plant

ONE = Query(scenario="single-stream", crops=1)
FRAME = Query(scenario="end-to-end", crops=2)


class SteadyMeter:
    """The meter of a device that always draws 10 W."""

    source = "nameplate"
    hardware = frozenset({"cpu"})

    def __init__(self):
        self.readings = []

    @contextlib.contextmanager
    def measuring(self):
        reading, start = Reading(), time.perf_counter()
        yield reading
        reading.seconds = time.perf_counter() - start
        reading.joules = 10 * reading.seconds
        self.readings.append(reading)


@pytest.fixture(scope="module")
def meter():
    return SteadyMeter()


@pytest.fixture(scope="module")
def timed(session_bundle, tmp_path_factory, meter):
    nowhere = Variant(bundle=tmp_path_factory.mktemp("none"), engine="openvino", precision="fp32")
    variants = [
        Variant(bundle=session_bundle.path, engine="onnxruntime", precision="int8", threads=1),
        nowhere,
        Variant(bundle=session_bundle.path, engine="openvino", precision="fp32"),
    ]
    steps: list[int] = []
    timings, failures = time_variants(
        variants, [FRAME, ONE], rounds=2, seconds=0.05, on_step=steps.append, energy_meter=meter
    )
    return variants, timings, failures, steps


def test_every_variant_is_timed_in_every_query_and_round(timed):
    variants, timings, _, _ = timed
    found = [(timing.variant, timing.query) for timing in timings]
    assert found == [(variants[0], FRAME), (variants[0], ONE), (variants[2], FRAME), (variants[2], ONE)]
    for timing in timings:
        assert len(timing.rounds_ms) == 2
        assert all(sample > 0 for samples in timing.rounds_ms for sample in samples)
        assert timing.warm_up > 0
        assert timing.first_ms > 0
    assert [timing.description.split()[0] for timing in timings] == ["onnxruntime"] * 2 + ["openvino"] * 2


def test_a_variant_that_fails_is_reported_and_the_others_go_on(timed):
    variants, _, failures, _ = timed
    assert [failure.variant for failure in failures] == [variants[1]]
    assert failures[0].reason.startswith("BundleError: ")


def test_all_steps_are_reported_even_for_a_variant_that_fails(timed):
    _, _, _, steps = timed
    assert sum(steps) == step_count(3, 2, 2) == 18


def test_larger_queries_come_later_in_the_peak_of_memory(timed):
    _, timings, _, _ = timed
    assert timings[0].peak_rss_mb >= timings[1].peak_rss_mb  # 2 crops of a frame after 1


def test_energy_is_counted_around_the_rounds(timed, meter):
    _, timings, _, _ = timed
    assert len(meter.readings) == sum(len(timing.rounds_ms) for timing in timings)
    sampled = sum(sample for timing in timings for samples in timing.rounds_ms for sample in samples) / 1000
    read = sum(reading.seconds for reading in meter.readings)
    assert sampled <= read
    for timing in timings:
        assert timing.energy.mean_watts == pytest.approx(10)
        assert timing.energy.source == "nameplate"
        # Queries that wake the process up are counted too: there are more than samples.
        assert 0 < timing.energy.joules_per_crop <= 10 * read / sum(map(len, timing.rounds_ms)) / timing.query.crops


def test_energy_a_crop_is_joules_over_crops():
    turns = [(Reading(joules=6.0, seconds=2.0), 10), (Reading(joules=2.0, seconds=2.0), 10)]
    energy = energy_of(turns, 4, "rapl")
    assert (energy.joules_per_crop, energy.mean_watts, energy.source) == (0.1, 2, "rapl")


def test_a_counter_that_stands_still_gives_no_energy():
    assert energy_of([], 1, "") is None
    assert energy_of([(Reading(joules=6.0, seconds=2.0), 10), (Reading(joules=None, seconds=2.0), 10)], 1, "x") is None


def test_a_budget_shortens_turns_and_never_lengthens_them():
    assert Clock(1.0, None).turn(1000) == 1.0
    assert Clock(1.0, 10_000).turn(10) == 1.0
    assert Clock(1.0, 100).turn(200) == pytest.approx(100 / 200 / 1.25, rel=0.01)
    assert Clock(1.0, 1).turn(100_000) == 0.02


def test_a_budget_bounds_warming_up():
    assert Clock(1.0, None).warm_up(1000) == 2.0
    assert Clock(1.0, 100).warm_up(50) == 0.5


@pytest.mark.parametrize(("available", "expected"), [(100, 1), (4_000_000, 4), (10**9, MOST_WORKERS)])
def test_as_many_are_loaded_at_once_as_half_the_memory_holds(tmp_path, available, expected):
    meminfo = f"MemTotal:  8000000 kB\nMemFree:  5 kB\nMemAvailable:   {available} kB\n"
    assert workers_at_once(plant(tmp_path, {"proc/meminfo": meminfo})) == expected


def test_workers_on_a_gpu_take_more_of_the_memory_that_they_share(tmp_path):
    jetson = plant(tmp_path, {"proc/meminfo": "MemTotal:  8000000 kB\nMemAvailable:  6000000 kB\n"})
    assert (workers_at_once(jetson), workers_at_once(jetson, on_gpu=True)) == (7, 2)


def test_workers_on_a_card_share_its_memory_too(tmp_path, driver):
    pc = plant(tmp_path, {"proc/meminfo": "MemTotal:  64000000 kB\nMemAvailable:  60000000 kB\n"})
    driver.gpu("NVIDIA GeForce RTX 4060", "8.9", 24, 8 << 30)
    assert (workers_at_once(pc), workers_at_once(pc, on_gpu=True)) == (MOST_WORKERS, 4)
    driver.gpu("Orin", "8.7", 8, 8 << 30)  # the memory is one
    assert workers_at_once(pc, on_gpu=True) == 20


def test_a_container_loads_no_more_than_half_of_its_own_memory_holds(tmp_path):
    host = {"proc/meminfo": "MemTotal:  64000000 kB\nMemAvailable:   60000000 kB\n"}
    assert workers_at_once(plant(tmp_path / "host", host)) == MOST_WORKERS
    assert workers_at_once(plant(tmp_path / "container", host, DOCKER_V2)) == 2


def test_without_a_word_on_memory_the_most_are_loaded(tmp_path):
    assert workers_at_once(tmp_path) == MOST_WORKERS
    assert 1 <= workers_at_once() <= MOST_WORKERS


def test_nothing_to_time_is_no_trouble():
    assert time_variants([], [ONE], rounds=1, seconds=0.1) == ([], [])


@pytest.mark.parametrize(
    ("counted", "engine", "device", "measured"),
    [
        ("cpu", "openvino", "CPU", True),
        ("cpu", "openvino", "GPU", True),  # on the CPU's package
        ("cpu", "tensorrt", "CPU", False),
        ("cpu", "onnxruntime", "CUDA.1", False),
        ("gpu", "tensorrt", "CPU", True),
        ("gpu", "onnxruntime", "TENSORRT", True),
        ("gpu", "onnxruntime", "CPU", False),
    ],
)
def test_a_meter_says_nothing_of_hardware_that_it_does_not_count(
    monkeypatch, meter, tmp_path, counted, engine, device, measured
):
    class Process:
        def __init__(self, _environment):
            pass

        def ask(self, _request, _wanted, *, seconds):
            return Timed(samples_ms=(1.0,), queries=2)

    monkeypatch.setattr(session_module, "WorkerProcess", Process)
    monkeypatch.setattr(meter, "hardware", frozenset({counted}))
    session = Session(Variant(bundle=tmp_path, engine=engine, precision="fp16", device=device))
    session.rounds[ONE], session._turns[ONE] = [], []
    session.take_turn(ONE, 0.1, meter)
    assert session.rounds[ONE] == [(1.0,)]
    assert (energy_of(session._turns[ONE], 1, meter.source) is not None) is measured
