"""Energy meters: a Jetson's INA3221 or INA238 power monitors, or RAPL of Intel and AMD and NVML of NVIDIA's GPUs.

A figure includes everything that the counted part of the device draws, idle power too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from reid_edge.system.nvml import GpuCounter, find_gpu_counters
from reid_edge.system.power_rails import Rail, Sampler, find_rails, total_rails
from reid_edge.system.sysfs import ROOT, read_integer, read_text

#: What a meter counts: CPUs with what is on their package, and NVIDIA's GPUs.
Hardware = Literal["cpu", "gpu"]


@dataclass
class Reading:
    """Energy and time of a block, filled in when its ``with`` block ends.

    Attributes:
        joules: None where the counter could not be read or did not move, as in some virtual machines.
        seconds: Length of the block.
    """

    joules: float | None = None
    seconds: float = 0.0


class EnergyMeter(Protocol):
    """Counts the energy of a ``with`` block.

    Attributes:
        source: Name of the counter, as a result names it.
        hardware: What it counts; of work on other hardware it says nothing.
    """

    source: str
    hardware: frozenset[Hardware]

    def measuring(self) -> AbstractContextManager[Reading]:
        """``with meter.measuring() as reading: …``; afterwards ``reading.joules`` over ``reading.seconds``."""
        ...


def find_meter(root: Path = ROOT) -> EnergyMeter | None:
    """Return the meter of this device; None where it has none that this user may read (:func:`missing_reason`).

    A PC with an NVIDIA GPU has two counters, which are added: while one computes, the other draws its idle power.
    """
    rails = total_rails(find_rails(root))
    if rails:
        return RailMeter(rails)
    meters: list[EnergyMeter] = []
    if domains := [domain for domain in _rapl_domains(root) if domain.read() is not None]:
        meters.append(RaplMeter(domains))
    if gpus := find_gpu_counters():
        meters.append(NvmlMeter(gpus))
    return SumMeter(meters) if len(meters) > 1 else next(iter(meters), None)


def missing_reason(root: Path = ROOT) -> str:
    """Say in a sentence why :func:`find_meter` gives no meter that counts the CPU; "" where it gives one."""
    if (meter := find_meter(root)) is not None and "cpu" in meter.hardware:
        return ""
    start = "No energy" if meter is None else "No energy of the CPU"
    if domains := _rapl_domains(root):
        counter = domains[0].folder / "energy_uj"
        return f"{start}: this user may not read {counter}; run as root, or: sudo chmod a+r {counter}"
    return f"{start}: this device has no counter that reid-edge reads (RAPL, a Jetson's INA3221 or INA238)."


@dataclass(frozen=True, kw_only=True)
class RaplDomain:
    """One energy counter of the kernel's powercap interface.

    Attributes:
        name: ``package-0``, ``dram``.
        folder: Folder of its files.
        range_uj: Value at which the counter starts again from zero, microjoules.
    """

    name: str
    folder: Path
    range_uj: int

    def read(self) -> int | None:
        """Return the counter's value, microjoules; None where it cannot be read."""
        return read_integer(self.folder / "energy_uj")


class RaplMeter:
    """Meter of packages and memory, by counters in microjoules that start again from zero at ``max_energy_range_uj``.

    A counter must not go round twice in one block: at 100 W that takes 10 minutes (AMD) or 40 (Intel).

    Source: the kernel's power/powercap/powercap.rst.
    """

    hardware: frozenset[Hardware] = frozenset({"cpu"})

    def __init__(self, domains: list[RaplDomain]) -> None:
        self._domains = domains
        self.source = f"RAPL ({', '.join(domain.name for domain in domains)})"

    @contextmanager
    def measuring(self) -> Iterator[Reading]:
        """See :class:`EnergyMeter`."""
        reading = Reading()
        start, before = time.perf_counter(), [domain.read() for domain in self._domains]
        yield reading
        after = [domain.read() for domain in self._domains]
        reading.seconds = time.perf_counter() - start
        reading.joules = _joules([domain.range_uj for domain in self._domains], before, after)


class RailMeter:
    """Meter that samples the power of supply rails in a thread and integrates it by the trapezoidal rule."""

    hardware: frozenset[Hardware] = frozenset({"cpu", "gpu"})

    def __init__(self, rails: list[Rail]) -> None:
        self._rails = rails
        self.source = f"{rails[0].chip} ({' + '.join(rail.name for rail in rails)})"

    @contextmanager
    def measuring(self) -> Iterator[Reading]:
        """See :class:`EnergyMeter`."""
        reading = Reading()
        with Sampler(self._rails) as sampler:
            yield reading
        reading.seconds, reading.joules = sampler.seconds, sampler.joules or None


class NvmlMeter:
    """Meter of all NVIDIA GPUs of this device, by counters in millijoules."""

    hardware: frozenset[Hardware] = frozenset({"gpu"})

    def __init__(self, counters: list[GpuCounter]) -> None:
        self._counters = counters
        self.source = f"NVML ({', '.join(counter.name for counter in counters)})"

    @contextmanager
    def measuring(self) -> Iterator[Reading]:
        """See :class:`EnergyMeter`."""
        reading = Reading()
        start, before = time.perf_counter(), [counter.read() for counter in self._counters]
        yield reading
        after = [counter.read() for counter in self._counters]
        reading.seconds = time.perf_counter() - start
        used = [  # a driver that was loaded again counts from 0
            end - begin
            for begin, end in zip(before, after, strict=True)
            if begin is not None and end is not None and begin <= end
        ]
        reading.joules = sum(used) / 1e3 or None if len(used) == len(before) else None


class SumMeter:
    """Meter that adds what others count; no figure where one of them gives none."""

    def __init__(self, meters: list[EnergyMeter]) -> None:
        self._meters = meters
        self.source = " + ".join(meter.source for meter in meters)
        self.hardware: frozenset[Hardware] = frozenset().union(*(meter.hardware for meter in meters))

    @contextmanager
    def measuring(self) -> Iterator[Reading]:
        """See :class:`EnergyMeter`."""
        reading = Reading()
        with ExitStack() as stack:
            parts = [stack.enter_context(meter.measuring()) for meter in self._meters]
            yield reading
        joules = [part.joules for part in parts if part.joules is not None]
        reading.seconds = max(part.seconds for part in parts)
        reading.joules = sum(joules) if len(joules) == len(parts) else None


def _joules(ranges_uj: list[int], before: list[int | None], after: list[int | None]) -> float | None:
    total = 0
    for range_uj, start, end in zip(ranges_uj, before, after, strict=True):
        if start is None or end is None:
            return None
        total += end - start if end >= start else end - start + range_uj
    return total / 1e6 if total else None


def _rapl_domains(root: Path) -> list[RaplDomain]:
    """List packages, which hold cores and graphics, and memory beside them; not ``psys``, which holds packages again.

    AMD's counters have the same names. ``intel-rapl-mmio`` counts the same package a second time.
    """
    domains = []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name, range_uj = read_text(folder / "name"), read_integer(folder / "max_energy_range_uj")
        if name.startswith(("package", "dram")) and range_uj is not None:
            domains.append(RaplDomain(name=name, folder=folder, range_uj=range_uj))
    return domains
