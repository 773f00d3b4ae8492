import os

import pytest

from reid_edge.runtime.cpu import cpu_name, here, instruction_sets, isa_limit, saturates_int8
from reid_edge.runtime.limits import cpu_quota, quota_throttles, usable_cpus, usable_memory
from reid_edge.runtime.system_files import count_listed
from tests.benchmark.recorded_trees import (
    DOCKER_V1,
    DOCKER_V2,
    NUC,
    ORIN_NANO,
    RK3588_CPUINFO,
    SYSTEMD_SLICE,
    UNLIMITED_V1,
    plant,
)

MEMORY = {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n"}
EIGHT_CPUS = {"proc/self/status": "Cpus_allowed_list:\t0-7\n"}


@pytest.fixture(autouse=True)
def _no_isa_limit(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)


def x86(monkeypatch, root, flags):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return plant(root, {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n"})


def test_an_arm_cpu_is_named_by_its_cores(tmp_path):
    assert cpu_name(plant(tmp_path / "orin", ORIN_NANO)) == "Cortex-A78AE"
    assert cpu_name(plant(tmp_path / "rk", RK3588_CPUINFO)) == "Cortex-A55 + Cortex-A76"
    unknown = {"proc/cpuinfo": "CPU implementer\t: 0x99\nCPU part\t: 0x001\n"}
    assert cpu_name(plant(tmp_path / "new", unknown)) == "Arm core 0x99/0x001"


def test_the_class_of_a_device_is_what_a_choice_depends_on(tmp_path, monkeypatch):
    root = plant(tmp_path, NUC, DOCKER_V2)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    device = here("NVIDIA T4", root)
    assert (device.cpu, device.cpus) == ("11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", 2)
    assert device.instruction_sets == ("AVX2", "AVX-512", "AVX512-VNNI")
    assert (device.isa_limit, device.gpu) == ("AVX2", "NVIDIA T4")


def test_this_machine_has_a_class():
    assert here() == here()
    assert here().cpus <= len(os.sched_getaffinity(0))
    assert list(here().instruction_sets) == instruction_sets()


@pytest.mark.parametrize(
    ("flags", "limit", "saturates"),
    [
        ("avx2", "", True),
        ("avx2 avx_vnni", "", False),
        ("avx2 avx512f avx512_vnni", "", False),
        ("avx2 avx512f avx512_vnni", "AVX2", True),
        ("avx2 avx512f avx512_vnni", "avx512_core", True),
        ("avx2 avx512f avx512_vnni", "AVX512_CORE_VNNI", False),
        ("avx2 avx512f avx512_vnni", "AVX2_VNNI", True),
        ("avx2 avx512f avx512_vnni avx_vnni", "AVX2_VNNI", False),
        ("avx2 avx512f avx512_vnni", "ALL", False),
    ],
)
def test_a_cpu_that_stands_in_for_one_without_vnni_saturates_too(tmp_path, monkeypatch, flags, limit, saturates):
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert saturates_int8(x86(monkeypatch, tmp_path, flags)) is saturates


def test_no_limit_of_the_instruction_set_has_several_names(monkeypatch):
    for name in ("ALL", "default", ""):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", name)
        assert isa_limit() == ""


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
