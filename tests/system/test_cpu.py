import pytest

from reid_edge.system.cpu import cache_sizes, cpu_name, isa_limit, saturates_int8
from tests.system.recorded_trees import NUC, ORIN_NANO, RK3588_CPUINFO, plant


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


def test_caches_are_added_over_their_instances_not_over_the_cpus_that_share_them(tmp_path):
    expected = {"L1d": 4 * 48 * 1024, "L1i": 4 * 32 * 1024, "L2": 4 * 1280 * 1024, "L3": 8192 * 1024}
    assert cache_sizes(plant(tmp_path, NUC)) == expected


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
