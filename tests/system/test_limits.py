import pytest

from reid_edge.system.limits import cpu_quota, quota_throttles, usable_cpus, usable_memory
from reid_edge.system.sysfs import count_listed
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


@pytest.mark.parametrize(("text", "count"), [("0-7", 8), ("0-3,8,10-11", 7), ("5", 1), ("", 0)])
def test_a_list_of_cpus_is_counted(text, count):
    assert count_listed(text) == count
