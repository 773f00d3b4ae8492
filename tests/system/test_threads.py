import os

import pytest

from reid_edge.system.threads import configure_openmp, thread_limit
from tests.system.recorded_trees import DOCKER_V1, DOCKER_V2, NUC, SYSTEMD_SLICE, UNLIMITED_V1, plant


def allowed(cpus):
    return {"proc/self/status": f"Cpus_allowed_list:\t{cpus}\n", "sys/devices/system/cpu/online": "0-7\n"}


@pytest.mark.parametrize(
    ("tree", "limit"),
    [
        (allowed("0-7"), None),
        (allowed("0-7") | UNLIMITED_V1, None),
        (allowed("0-7") | DOCKER_V2, 2),
        (allowed("0-7") | DOCKER_V1, 1),
        (allowed("0-7") | SYSTEMD_SLICE, 2),
        (allowed("3"), 1),
        (allowed("0,4"), 1),
        (allowed("0-2,4"), 3),
        (allowed("0-2,4") | DOCKER_V2, 2),
    ],
)
def test_a_library_gets_no_more_threads_than_usable_cores(tmp_path, tree, limit):
    """The NUC has four cores: CPUs 0 and 4 are one, and so on."""
    assert thread_limit(plant(tmp_path, NUC, tree)) == limit


def test_without_a_topology_each_usable_cpu_gets_a_thread(tmp_path):
    assert thread_limit(plant(tmp_path, allowed("0-7"), DOCKER_V2)) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "4000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
    ],
)
def test_threads_spin_briefly_unless_the_user_says_how_they_wait(tmp_path, monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", dict(given))
    configure_openmp(plant(tmp_path, allowed("0-7")))
    assert os.environ == expected


@pytest.mark.parametrize(
    ("tree", "given", "expected"), [({}, {}, None), (DOCKER_V2, {}, "2"), (DOCKER_V2, {"OMP_NUM_THREADS": "5"}, "5")]
)
def test_openmp_starts_as_many_threads_as_a_quota_grants(tmp_path, monkeypatch, tree, given, expected):
    monkeypatch.setattr(os, "environ", dict(given))
    configure_openmp(plant(tmp_path, NUC, allowed("0-7"), tree))
    assert os.environ.get("OMP_NUM_THREADS") == expected
