import pytest

from reid_edge.system.limits import (
    allowed_cpus,
    cpu_quota,
    free_memory,
    peak_memory_mib,
    quota_throttles,
    usable_cpus,
    usable_memory,
)
from reid_edge.system.sysfs import listed
from tests.system.recorded_trees import DOCKER_V1, DOCKER_V2, SYSTEMD_SLICE, UNLIMITED_V1, plant

MEMORY = {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n"}
EIGHT_CPUS = {"proc/self/status": "Cpus_allowed_list:\t0-7\n"}


@pytest.mark.parametrize(
    ("tree", "quota", "cpus", "memory"),
    [
        (DOCKER_V2, 1.5, 2, 2 << 30),
        (SYSTEMD_SLICE, 2.0, 2, 8000000 * 1024),
        (DOCKER_V1, 0.5, 1, 1 << 30),
        (UNLIMITED_V1, None, 8, 8000000 * 1024),
        ({}, None, 8, 8000000 * 1024),
    ],
)
def test_control_groups_limit_cpus_and_memory(tmp_path, tree, quota, cpus, memory):
    root = plant(tmp_path, EIGHT_CPUS, MEMORY, tree)
    assert (cpu_quota(root), usable_cpus(root), usable_memory(root)) == (quota, cpus, memory)


def test_periods_that_a_quota_cut_short_are_counted_only_where_there_is_one(tmp_path):
    assert quota_throttles(plant(tmp_path / "docker", DOCKER_V2)) == 7
    assert quota_throttles(plant(tmp_path / "free", UNLIMITED_V1)) is None


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3", [0, 1, 2, 3]), ("0-1,8,10-11", [0, 1, 8, 10, 11]), ("5", [5]), ("", [])]
)
def test_a_list_of_cpus_is_spelt_out(text, numbers):
    assert listed(text) == numbers


def test_a_cpuset_allows_its_own_cpus(tmp_path):
    root = plant(tmp_path, {"proc/self/status": "Cpus_allowed_list:\t2-3,6\n"})
    assert (allowed_cpus(root), usable_cpus(root)) == ([2, 3, 6], 3)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, 6000000 << 10),
        (DOCKER_V2, 2 << 30),
        (DOCKER_V2 | {"sys/fs/cgroup/memory.current": f"{1 << 30}\n"}, 1 << 30),
        (
            DOCKER_V2
            | {
                "sys/fs/cgroup/memory.current": f"{1 << 30}\n",
                "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {1 << 29}\n",
            },
            3 << 29,
        ),
        (DOCKER_V1 | {"sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 << 30}\n"}, 0),
        (UNLIMITED_V1, 6000000 << 10),
        (SYSTEMD_SLICE, 6000000 << 10),
    ],
)
def test_free_memory_is_what_the_control_group_has_left(tmp_path, tree, expected):
    assert free_memory(plant(tmp_path, MEMORY, tree)) == expected


def test_peak_memory_is_read_as_the_kernel_writes_it(tmp_path):
    status = "Name:\tpython\nVmPeak:\t  999999 kB\nVmHWM:\t  262144 kB\nVmRSS:\t  100000 kB\n"
    assert peak_memory_mib(plant(tmp_path, {"proc/self/status": status})) == 256
    assert peak_memory_mib(plant(tmp_path, {"proc/self/status": "Name:\tpython\n"})) is None
    assert peak_memory_mib(tmp_path / "none") is None
    assert 10 < peak_memory_mib() < 100_000
