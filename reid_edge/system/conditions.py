"""Conditions of the machine at one moment: load, temperatures, frequencies, throttling; changes between two."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from reid_edge.system.limits import quota_throttles, usable_cpus
from reid_edge.system.sysfs import ROOT, numbered, read_integer, read_text
from reid_edge.wording import counted

#: A sensor that heated up more than this many degrees while timing is worth a note.
NOTABLE_RISE_C = 10.0
#: A load average above this share of the CPUs, before the first round, is worth a note: another program is working.
NOTABLE_LOAD = 0.5

#: A sensor that is switched off reads far less than any chip survives (Tegra: −256 °C).
_LOWEST_C = -100.0
#: Names of the three over-current events of Orin's soctherm in NVIDIA's Jetson Linux Developer Guide.
_SOCTHERM_EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
#: Cooling devices of the kernel that slow a processor down; fans are others.
_SLOWING = re.compile(r"^(cpufreq|thermal-cpufreq|cpu|processor|devfreq|gpu)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Conditions of the machine at one moment; readings that the system does not give are left out.

    Attributes:
        at: ISO 8601, UTC.
        load_1min: Load average of the last minute.
        temperatures_c: By sensor, degrees Celsius.
        frequencies_mhz: Of the cores.
        throttle_events: Counters of thermal throttling, by core or zone.
    """

    at: str
    load_1min: float | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    frequencies_mhz: tuple[float, ...] = ()
    throttle_events: dict[str, int] = field(default_factory=dict)


def read_conditions(root: Path = ROOT) -> Condition:
    """Read the sensors and counters whose files lie under ``root``."""
    load = read_text(root / "proc/loadavg").partition(" ")[0]
    return Condition(
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        load_1min=float(load) if load else None,
        temperatures_c=_temperatures(root),
        frequencies_mhz=_frequencies(root),
        throttle_events=_throttle_events(root),
    )


def changes(before: Condition, after: Condition, root: Path = ROOT) -> tuple[str, ...]:
    """Note, one sentence each, throttling and heating between two moments, and a machine that was busy at the first."""
    notes = [
        f"Throttled while timing: {name} counted {counted(count - before.throttle_events.get(name, 0), 'more time')}."
        for name, count in after.throttle_events.items()
        if count > before.throttle_events.get(name, 0)
    ]
    shared = before.temperatures_c.keys() & after.temperatures_c.keys()
    rises = {name: after.temperatures_c[name] - before.temperatures_c[name] for name in sorted(shared)}
    hottest = max(rises, key=lambda name: rises[name], default="")
    if rises and rises[hottest] > NOTABLE_RISE_C:
        start, end = before.temperatures_c[hottest], after.temperatures_c[hottest]
        notes.append(f"Heated up while timing: {hottest} from {start:.0f} to {end:.0f} °C.")
    if before.load_1min is not None and before.load_1min > NOTABLE_LOAD * usable_cpus(root):
        notes.append(f"Busy before the first round: load average {before.load_1min:.2f}.")
    return tuple(notes)


def zone_temperatures(root: Path = ROOT) -> dict[str, float]:
    """Read the kernel's thermal zones, degrees Celsius by name; sensors that are switched off are left out."""
    return _degrees([(kind, zone / "temp") for zone, kind in _zones(root).items()])


def cpu_throttle_counts(root: Path = ROOT) -> dict[str, int]:
    """Count how often each core and package of an Intel CPU was throttled; a package's count shows at each core.

    Source: the kernel's admin-guide/thermal/intel_thermal_throttle.rst.
    """
    counts: dict[str, int] = {}
    for cpu in numbered((root / "sys/devices/system/cpu").glob("cpu[0-9]*")):
        package = read_text(cpu / "topology/physical_package_id") or "0"
        for name, file in ((cpu.name, "core_throttle_count"), (f"package {package}", "package_throttle_count")):
            count = read_integer(cpu / "thermal_throttle" / file)
            if count is not None:
                counts[name] = max(count, counts.get(name, 0))
    return counts


def _temperatures(root: Path) -> dict[str, float]:
    zones = _zones(root)
    # Each zone may show a second time as a sensor chip of the same name.
    mirrored = {kind.replace("-", "_") for kind in zones.values()}
    sensors = [(kind, zone / "temp") for zone, kind in zones.items()]
    for chip in numbered((root / "sys/class/hwmon").glob("hwmon*")):
        name = read_text(chip / "name") or chip.name
        if name not in mirrored:
            sensors += [(_sensor_name(name, reading), reading) for reading in numbered(chip.glob("temp*_input"))]
    return _degrees(sensors)


def _zones(root: Path) -> dict[Path, str]:
    zones = numbered((root / "sys/class/thermal").glob("thermal_zone*"))
    return {zone: read_text(zone / "type") or zone.name for zone in zones}


def _sensor_name(chip: str, reading: Path) -> str:
    label = read_text(reading.with_name(reading.name.replace("_input", "_label")))
    return f"{chip} {label or reading.name.removesuffix('_input')}"


def _degrees(sensors: list[tuple[str, Path]]) -> dict[str, float]:
    """Read sensors in thousandths of a degree; of two with one name, as two disks have, the second gets a number."""
    readings = [(name, value / 1000) for name, path in sensors if (value := read_integer(path)) is not None]
    found: dict[str, float] = {}
    for name, degrees in readings:
        if degrees > _LOWEST_C:
            same = sum(other == name or other.startswith(f"{name} #") for other in found)
            found[f"{name} #{same + 1}" if same else name] = degrees
    return found


def _frequencies(root: Path) -> tuple[float, ...]:
    cpus = numbered((root / "sys/devices/system/cpu").glob("cpu[0-9]*"))
    kilohertz = [read_integer(cpu / "cpufreq/scaling_cur_freq") for cpu in cpus]
    reported = tuple(value / 1000 for value in kilohertz if value is not None)
    lines = read_text(root / "proc/cpuinfo").splitlines()
    return reported or tuple(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))


def _throttle_events(root: Path) -> dict[str, int]:
    counts = cpu_throttle_counts(root) | _soctherm_counts(root) | _cooling_counts(root)
    quota = quota_throttles(root)
    return counts if quota is None else counts | {"CPU quota": quota}


def _soctherm_counts(root: Path) -> dict[str, int]:
    """Count a Jetson's over-current events.

    Source: NVIDIA's Jetson Linux Developer Guide, "Jetson Orin Nano Series, … Over-Current Event Status".
    """
    counts: dict[str, int] = {}
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        event = path.name.partition("_")[0]
        count = read_integer(path)
        if count is not None:
            counts[f"{_SOCTHERM_EVENTS.get(event, event)} ({event})"] = count
    return counts


def _cooling_counts(root: Path) -> dict[str, int]:
    """Count changes of state of the cooling devices that slow a processor down.

    Kernels without CONFIG_THERMAL_STATISTICS do not count.

    Source: the kernel's driver-api/thermal/sysfs-api.rst.
    """
    counts: dict[str, int] = {}
    for device in numbered((root / "sys/class/thermal").glob("cooling_device*")):
        kind, count = read_text(device / "type"), read_integer(device / "stats/total_trans")
        if count is not None and _SLOWING.match(kind):
            counts[f"{kind} ({device.name})"] = count
    return counts
