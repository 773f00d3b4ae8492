"""Damaged plans: each must be refused by a typed error or run, and never end the process.

    python -m tests.runtime.native.mutations [--count 20000] [--seed 1]

counts what becomes of random damages.  With a library built by ``native/compile_library.py OUT.so --sanitize`` each
memory error ends it (.ci/sanitize says how to load one); `--keep` keeps the damage that did.
"""

from __future__ import annotations

import argparse
import collections
import struct
import sys
import time
from pathlib import Path

import numpy as np

from reid_edge.errors import BundleCorruptError, BundleVersionError, EngineError, EngineUnavailableError
from reid_edge.runtime.native.library import NativeNetwork, available_kernels
from tests.runtime.native.plans import HEADER, random_plan

REFUSALS = (BundleCorruptError, BundleVersionError, EngineError, EngineUnavailableError)
#: Numbers that a field of a header or record may be damaged to.
EXTREMES = (0, 1, 2, 3, 7, 8, 9, 12, 13, 15, 16, 17, 63, 64, 65, 255, 4095, 4096, 4097, 2**15, 2**16, 2**24, 2**31 - 1)
EXTREMES += (2**31, 2**32 - 1)
WEIGHTS = (0.0, -0.0, 1e-45, 1e-38, 1e30, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf"))


def mutate(plan: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Return the kind of a random damage, and the damaged plan."""
    kind = KINDS[int(random.integers(len(KINDS)))]
    return kind.__name__.removeprefix("_"), kind(bytearray(plan), random)


def _bit_flips(plan: bytearray, random: np.random.Generator) -> bytes:
    for _ in range(int(random.integers(1, 9))):
        plan[int(random.integers(len(plan)))] ^= 1 << int(random.integers(8))
    return bytes(plan)


def _description_bits(plan: bytearray, random: np.random.Generator) -> bytes:
    plan[int(random.integers(8, _description(plan)))] ^= 1 << int(random.integers(8))
    return bytes(plan)


def _extreme_field(plan: bytearray, random: np.random.Generator) -> bytes:
    for _ in range(int(random.integers(1, 4))):
        at = 8 + 4 * int(random.integers((_description(plan) - 8) // 4))
        plan[at : at + 4] = struct.pack("<I", EXTREMES[int(random.integers(len(EXTREMES)))])
    return bytes(plan)


def _fitting_count(plan: bytearray, random: np.random.Generator) -> bytes:
    """A damaged description with as many weights as the file then has room for: more of them get past the checks."""
    damaged = bytearray(_extreme_field(plan, random))
    if random.integers(2):  # a length that another description may have
        damaged += bytes(4 * int(random.integers(4096)))
    floats = max(0, len(damaged) - _description(damaged)) // 4
    damaged[HEADER.size - 16 : HEADER.size] = struct.pack("<2Q", floats, 0)
    return bytes(damaged)


def _truncated(plan: bytearray, random: np.random.Generator) -> bytes:
    return bytes(plan[: int(random.integers(len(plan)))])


def _lengthened(plan: bytearray, random: np.random.Generator) -> bytes:
    return bytes(plan) + random.bytes(int(random.integers(1, 300)))


def _extreme_weights(plan: bytearray, random: np.random.Generator) -> bytes:
    start = _description(plan)
    for _ in range(int(random.integers(1, 20))):
        at = start + 4 * int(random.integers((len(plan) - start) // 4))
        plan[at : at + 4] = struct.pack("<f", WEIGHTS[int(random.integers(len(WEIGHTS)))])
    return bytes(plan)


def _all_weights(plan: bytearray, random: np.random.Generator) -> bytes:
    """Finite weights of any bits: sums overflow, and kernels meet infinities and numbers that are none."""
    start = _description(plan)
    bits = np.frombuffer(random.bytes((len(plan) - start) // 4 * 4), "<u4") & 0xFF7FFFFF
    return bytes(plan[:start]) + (bits & (0x7FFFFFFF if len(plan) % 8 else 0xFFFFFFFF)).tobytes()


def _huge_counts(plan: bytearray, random: np.random.Generator) -> bytes:
    counts = (0, 1, 2**32, 2**61, 2**62, 2**63, 2**64 - 1, 2**64 - 4)
    chosen = random.integers(len(counts), size=2)
    plan[HEADER.size - 16 : HEADER.size] = struct.pack("<2Q", *(counts[int(i)] for i in chosen))
    return bytes(plan)


def _unaltered(plan: bytearray, random: np.random.Generator) -> bytes:
    return bytes(plan)


KINDS = (
    *(_bit_flips, _description_bits, _extreme_field, _fitting_count, _truncated, _lengthened),
    *(_extreme_weights, _all_weights, _huge_counts, _unaltered),
)


def _description(plan: bytearray) -> int:
    """Bytes of the header and the block records."""
    return min(len(plan), HEADER.size + 24 * min(64, struct.unpack_from("<I", plan, 8 + 16 * 4)[0]))


def outcome(plan: bytes, kernels: str | None, precision: str, seed: int) -> str:
    """Load a plan and run it where it is not too large; return the error's name or what it did."""
    try:
        network = NativeNetwork(plan, precision=precision, threads=1 + seed % 2, kernels=kernels)
    except REFUSALS as error:
        return type(error).__name__
    if network.info.size[0] * network.info.size[1] > 10_000:
        return "loaded"
    pixels = np.random.default_rng(seed).integers(0, 256, (1 + seed % 3, *network.info.size, 3), np.uint8)
    return "ran" if np.isfinite(network.run(pixels)).all() else "ran to features that are not finite"


def count_outcomes(count: int, seed: int, kept: Path | None = None) -> collections.Counter[tuple[str, str]]:
    """Damage `count` random plans; `kept` receives each one before it is loaded."""
    chosen = [(precision, name) for precision in ("fp32", "bf16", "int8") for name in available_kernels(precision)]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for number in range(count):
        random = np.random.default_rng((seed, number))
        precision, kernels = chosen[number % len(chosen)]
        drawn = random_plan(int(random.integers(2**31)), with_ranges=precision == "int8", most_channels=24)
        kind, damaged = mutate(drawn.encode(), random)
        if kept:
            kept.write_bytes(damaged)
        counts[kind, outcome(damaged, kernels, precision, number)] += 1
    return counts


if __name__ == "__main__":
    import tests.runtime.native.conftest  # noqa: F401  the library that the environment names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file that receives each damaged plan before it is loaded")
    options = parser.parse_args()
    start = time.monotonic()
    for (kind, result), times in sorted(count_outcomes(options.count, options.seed, options.keep).items()):
        sys.stdout.write(f"{kind:18} {result:38} {times}\n")
    seconds = time.monotonic() - start
    sys.stdout.write(f"{options.count} damages, seed {options.seed}, {seconds:.0f} s: none ended the process\n")
