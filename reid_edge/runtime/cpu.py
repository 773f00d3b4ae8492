"""What this CPU can do, as far as INT8 cares."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

#: Instruction sets worth naming, with the flag that Linux gives them.
_NAMED_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "asimddp": "dot product (Arm)",
    "i8mm": "I8MM (Arm)",
}


@cache
def cpu_flags() -> frozenset[str]:
    """Flags that /proc/cpuinfo lists for the first core; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Feat"))), []))


@cache
def cpu_name() -> str:
    """Model name of the CPU, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def instruction_sets() -> list[str]:
    """Names of the instruction sets that matter to inference and that this CPU has."""
    return [name for flag, name in _NAMED_FLAGS.items() if flag in cpu_flags()]


def saturates_int8() -> bool:
    """Whether products of full-range int8 weights may overflow here: x86 without VNNI adds pairs in 16 bits."""
    x86 = platform.machine().lower() in {"x86_64", "amd64", "i686", "i386"}
    return x86 and not cpu_flags() & {"avx512_vnni", "avx_vnni"}
