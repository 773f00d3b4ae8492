"""Name, instruction sets, caches, cores and clock governor of this CPU."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from reid_edge.system.sysfs import ROOT, numbered, read_text

#: Instruction sets worth naming, with the flag that Linux gives them.
_NAMED_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimdhp": "FP16 (Arm)",
    "asimddp": "dot product (Arm)",
    "i8mm": "I8MM (Arm)",
    "bf16": "BF16 (Arm)",
    "sve": "SVE (Arm)",
}

#: Letter that follows a cache's level, by its type in sysfs.
_CACHE_KINDS = {"Data": "d", "Instruction": "i", "Unified": ""}

#: Arm cores by implementer and part, as MIDR_EL1 gives them (Arm's technical reference manuals; same names as lscpu).
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd0e"): "Cortex-A76AE",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4b"): "Cortex-A78C",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
    ("0xc0", "0xac3"): "Ampere-1",
}


@cache
def cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """Return the flags that /proc/cpuinfo lists for the first core; empty where there is none."""
    lines = read_text(root / "proc/cpuinfo").splitlines()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Feat"))), []))


@cache
def cpu_name(root: Path = ROOT) -> str:
    """Return the CPU's model name, on Arm the kinds of its cores, or the architecture where there is neither."""
    fields = [line.partition(":") for line in read_text(root / "proc/cpuinfo").splitlines()]
    pairs = [(key.strip(), value.strip()) for key, _, value in fields]
    # Arm kernels that give a model name give a useless one: "ARMv8 Processor rev 1 (v8l)".
    names = _arm_cores(pairs) or [value for key, value in pairs if key == "model name"][:1]
    return " + ".join(names) or platform.machine()


def instruction_sets(root: Path = ROOT) -> list[str]:
    """Name the instruction sets that matter to inference and that this CPU has."""
    return [name for flag, name in _NAMED_FLAGS.items() if flag in cpu_flags(root)]


def cache_sizes(root: Path = ROOT) -> dict[str, int]:
    """Return the bytes of each level (``L1d``, ``L1i``, ``L2`` …), all instances together, as lscpu adds them."""
    instances: dict[tuple[str, str], int] = {}
    for index in _cpu_folders(root, "cache/index[0-9]*"):
        size = read_text(index / "size").removesuffix("K")
        if size.isdigit():
            level = f"L{read_text(index / 'level')}{_CACHE_KINDS.get(read_text(index / 'type'), '')}"
            instances[level, read_text(index / "shared_cpu_list")] = 1024 * int(size)
    totals: dict[str, int] = {}
    for (level, _), size_bytes in sorted(instances.items()):
        totals[level] = totals.get(level, 0) + size_bytes
    return totals


def physical_cores(root: Path = ROOT) -> int | None:
    """Count the physical cores by the threads that share each; None where the system does not say."""
    folders = _cpu_folders(root, "topology")
    cores = {read_text(each / "core_cpus_list") or read_text(each / "thread_siblings_list") for each in folders}
    return len(cores - {""}) or None


def frequency_governor(root: Path = ROOT) -> str:
    """Return the CPU frequency governor, or all of them where cores differ; "" where there is none."""
    return ", ".join(dict.fromkeys(filter(None, map(read_text, _cpu_folders(root, "cpufreq/scaling_governor")))))


def isa_limit() -> str:
    """Return ``ONEDNN_MAX_CPU_ISA``, which lets a CPU stand in for an older one; "" where nothing is limited.

    Source: oneDNN's developer guide, "CPU Dispatcher Control".
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    return "" if limit in {"ALL", "DEFAULT"} else limit


def saturates_int8(root: Path = ROOT) -> bool:
    """Tell whether products of full-range int8 weights may overflow here: x86 without VNNI adds pairs in 16 bits.

    A CPU that stands in for an older one (:func:`isa_limit`) is taken for that.
    """
    x86 = platform.machine().lower() in {"x86_64", "amd64", "i686", "i386"}
    return x86 and not cpu_flags(root) & _vnni_flags(isa_limit())


def _arm_cores(pairs: list[tuple[str, str]]) -> list[str]:
    implementers = [value for key, value in pairs if key == "CPU implementer"]
    parts = [value for key, value in pairs if key == "CPU part"]
    cores = dict.fromkeys(zip(implementers, parts, strict=False))
    return [_ARM_CORES.get(core, f"Arm core {core[0]}/{core[1]}") for core in cores]


def _cpu_folders(root: Path, pattern: str) -> list[Path]:
    cpus = numbered((root / "sys/devices/system/cpu").glob("cpu[0-9]*"))
    return [folder for cpu in cpus for folder in sorted(cpu.glob(pattern))]


def _vnni_flags(limit: str) -> frozenset[str]:
    if limit in {"SSE41", "AVX", "AVX2", "AVX512_CORE"}:
        return frozenset()
    return frozenset({"avx_vnni"} if limit.startswith("AVX2_VNNI") else {"avx_vnni", "avx512_vnni"})
