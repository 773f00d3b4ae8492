"""Supply rails that a Jetson's monitors measure, the choice that adds up to the whole, and their energy.

Sources: the kernel's hwmon/ina3221.rst and hwmon/ina238.rst; NVIDIA's Jetson Linux Developer Guide, "Software-Based
Power Consumption Modeling" and the rails' tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from reid_edge.system.sysfs import ROOT, read_integer, read_text

#: Seconds between two samples: the monitors convert in milliseconds, an I²C reading takes about one.
PERIOD = 0.02
#: Rails that everything else on the module hangs from; one of them is the whole module.
_WHOLE = ("VDD_IN", "POM_5V_IN", "5V_IN", "VIN")
#: Longest wait for the sampling thread to end: a few readings.
_LONGEST_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Rail:
    """One measured rail.

    Attributes:
        name: As the device tree labels it.
        files: Files whose product is its power: one of power, or those of voltage and current.
        unit: Of the numbers in them: 1e-3 for millivolts, milliamperes, milliwatts; 1e-6 for microwatts.
        chip: The monitor.
    """

    name: str
    files: tuple[Path, ...]
    unit: float = 1e-3
    chip: str = "INA3221"

    def watts(self) -> float | None:
        """Return the power now; None where the monitor does not answer."""
        product = 1.0
        for path in self.files:
            value = read_integer(path)
            if value is None:
                return None
            product *= value * self.unit
        return product


def find_rails(root: Path = ROOT) -> list[Rail]:
    """List every rail that can be read: those of the kernel's drivers (L4T 34 and later), or of L4T 32's own.

    The INA238 of a Thor measures the supply of the whole module, without a label.
    """
    drivers = root / "sys/bus/i2c/drivers"
    rails = []
    for label in sorted(drivers.glob("ina3221/*/hwmon/hwmon*/in[123]_label")):
        channel = label.name[2]
        files = (label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input"))
        rails.append(Rail(name=read_text(label), files=files))
    rails.extend(
        Rail(name=read_text(label), files=(label.with_name(f"in_power{label.name[-1]}_input"),))
        for label in sorted(drivers.glob("ina3221x/*/iio:device*/rail_name_[012]"))
    )
    rails.extend(
        Rail(name="VIN", files=(power,), unit=1e-6, chip="INA238")
        for power in sorted(drivers.glob("ina238/*/hwmon/hwmon*/power1_input"))
    )
    return [rail for rail in rails if rail.name not in {"", "NC"} and rail.watts() is not None]


def total_rails(rails: Sequence[Rail]) -> list[Rail]:
    """Return the rail that supplies the whole module, or all of them where no monitor measures that one (AGX)."""
    whole = [rail for rail in rails if rail.name in _WHOLE]
    return whole[:1] or list(rails)


def integrate(samples: Sequence[tuple[float, float]]) -> float | None:
    """Return the joules of samples (seconds, watts) by the trapezoidal rule; None for fewer than two."""
    if len(samples) < 2:
        return None
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairwise(samples))


class Sampler:
    """Reads rails in a thread while its ``with`` block runs, once at the start and once at the end at least.

    Attributes:
        joules: Afterwards, the energy; None where the rails did not answer.
        seconds: Afterwards, the length of the block.
    """

    def __init__(self, rails: Sequence[Rail], period: float = PERIOD) -> None:
        self._rails = rails
        self._period = period
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power rails", daemon=True)
        self.joules: float | None = None
        self.seconds = 0.0

    def __enter__(self) -> Sampler:
        self._start = time.perf_counter()
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_LONGEST_SECONDS)
        self._sample()
        self.seconds = time.perf_counter() - self._start
        self.joules = integrate(self._samples)

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._sample()

    def _sample(self) -> None:
        start = time.perf_counter()
        watts = [rail.watts() for rail in self._rails]
        if None not in watts:
            moment = (start + time.perf_counter()) / 2
            self._samples.append((moment, sum(power for power in watts if power is not None)))
