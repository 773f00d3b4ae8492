"""Times of kinds of layers: all of a run's time, and nothing but its time, and no other feature for it."""

import ctypes
import time
from ctypes import c_double

import numpy as np
import pytest

from reid_edge.errors import EngineError
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.runtime.native.library import LAYER_KINDS, NativeNetwork, _library
from reid_edge.runtime.native.plan import with_ranges
from reid_edge.runtime.native.work import count_work
from tests.osnet.random_networks import random_network
from tests.osnet.variants import VARIANTS
from tests.runtime.native.networks import kernels_of, needs_library, plan_of, random_pixels

pytestmark = needs_library

SIZE = (64, 32)


def plan(name="1 primary"):
    return plan_of(random_network(OSNetConfig(width=0.25, size=SIZE, variant=VARIANTS[name]), seed=1).float())


def timed(network, pixels):
    """Features of the last of three runs that are timed, their times, and the seconds that they took."""
    start = time.perf_counter()
    found = []
    times = network.time_layers(lambda: found.extend(network.run(pixels) for _ in range(3)))
    return found[-1], times, time.perf_counter() - start


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("threads", "crops"), [(1, 1), (1, 3), (2, 1), (2, 3), (2, 4)])
def test_all_kinds_are_timed_within_the_run_and_features_stay_the_same(precision, threads, crops):
    if not kernels_of(precision):
        pytest.skip(f"no kernels in {precision} for this CPU")
    pixels = random_pixels(crops, SIZE, seed=2)
    calibrated = with_ranges(plan(), NativeNetwork(plan()).calibrate(pixels))
    network = NativeNetwork(calibrated, precision=precision, threads=threads)
    expected = network.run(pixels)
    features, times, wall = timed(network, pixels)
    assert np.array_equal(features, expected)
    assert tuple(times.seconds) == LAYER_KINDS
    assert all(seconds >= 0 for seconds in (*times.seconds.values(), times.clock))
    assert 0 < sum(times.seconds.values()) + times.clock <= wall
    assert all(times.seconds[kind] > 0 for kind in (*count_work(plan()), "pools, norms"))
    assert np.array_equal(network.run(pixels), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_kinds_together_are_the_time_of_the_run(threads):
    network, pixels = NativeNetwork(plan(), threads=threads), random_pixels(5, SIZE, seed=2)
    shares = []
    for _ in range(10):  # between the run and its caller, other processes may take their turn
        _, times, wall = timed(network, pixels)
        shares.append((sum(times.seconds.values()) + times.clock) / wall)
    assert 0.5 < max(shares) <= 1


def test_every_kernel_gives_the_same_features_with_norms_and_with_concatenation():
    pixels = random_pixels(2, SIZE, seed=3)
    for name in ("IBN", "4 concatenation"):
        for kernels in kernels_of("fp32"):
            network = NativeNetwork(plan(name), kernels=kernels, threads=2)
            features, times, _ = timed(network, pixels)
            assert np.array_equal(features, network.run(pixels))
            assert min(times.seconds[kind] for kind in count_work(plan())) > 0


def test_the_layers_that_are_counted_are_timed_under_the_same_names():
    assert set(count_work(plan())) == set(LAYER_KINDS[:4])


def test_resizing_is_a_kind_of_its_own():
    crops = [np.full((700, 400, 3), 90, np.uint8)] * 2
    network = NativeNetwork(plan())
    times = network.time_layers(lambda: [network.run_crops(crops) for _ in range(5)]).seconds
    assert times["resizing"] > 2 * times["between layers"]  # of each crop 280,000 pixels are averaged


def test_calls_of_other_networks_and_calls_before_are_not_counted():
    network, other = NativeNetwork(plan()), NativeNetwork(plan())
    pixels = random_pixels(1, SIZE, seed=5)
    network.run(pixels)
    times = network.time_layers(lambda: other.run(pixels))
    assert {*times.seconds.values(), times.clock} == {0.0}


def test_timing_ends_where_the_call_fails():
    network = NativeNetwork(plan())

    def fail():
        network.run(random_pixels(1, SIZE, seed=6))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        network.time_layers(fail)
    network.run(random_pixels(1, SIZE, seed=6))
    assert set(network._profile(on=False)) == {0.0}


def test_a_second_measurement_meanwhile_is_refused_and_spoils_nothing():
    network = NativeNetwork(plan())

    def again():
        with pytest.raises(EngineError, match="being timed already"):
            network.time_layers(lambda: None)
        network.run(random_pixels(1, SIZE, seed=7))

    assert sum(network.time_layers(again).seconds.values()) > 0
    assert sum(network.time_layers(lambda: network.run(random_pixels(1, SIZE, seed=7))).seconds.values()) > 0


def test_an_array_of_another_number_of_kinds_is_refused():
    network = NativeNetwork(plan())
    for count in (0, len(LAYER_KINDS), len(LAYER_KINDS) + 2):
        seconds = (c_double * count)(*[7.0] * count)
        status = _library().reid_native_profile(network._engine, 1, seconds, ctypes.sizeof(seconds))
        assert (status, list(seconds)) == (3, [7.0] * count)
