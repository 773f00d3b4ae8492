"""Energy meters: a Jetson's INA3221 or INA238 power monitors, or RAPL of Intel and AMD.

A figure includes everything that the counted part of the device draws, idle power too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reid_edge.system.power_rails import Rail, Sampler, find_rails, total_rails
from reid_edge.system.sysfs import ROOT, read_integer, read_text


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
        source: Name of the counter,, as a result names it.
    """

    source: str

    def measuring(self) -> AbstractContextManager[Reading]:
        """``with meter.measuring() as reading: …``; afterwards ``reading.joules`` over ``reading.seconds``."""
        ...


def find_meter(root: Path = ROOT) -> EnergyMeter | None:
    """Return the meter of this device; None where it has none that this user may read (:func:`missing_reason`)."""
    rails = total_rails(find_rails(root))
    if rails:
        return RailMeter(rails)
    domains = [domain for domain in _rapl_domains(root) if domain.read() is not None]
    return RaplMeter(domains) if domains else None


def missing_reason(root: Path = ROOT) -> str:
    """Say in a sentence why :func:`find_meter` gives None; "" where it gives a meter."""
    if find_meter(root) is not None:
        return ""
    if domains := _rapl_domains(root):
        counter = domains[0].folder / "energy_uj"
        return f"No energy: this user may not read {counter}; run as root, or: sudo chmod a+r {counter}"
    return "No energy: this device has no counter that reid-edge reads (RAPL, a Jetson's INA3221 or INA238)."


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
