"""L4T release, power mode and clocks of a Jetson."""

from __future__ import annotations

import re
from pathlib import Path

from reid_edge.system.sysfs import ROOT, numbered, read_integer, read_text


def describe_jetson(root: Path = ROOT) -> dict[str, str]:
    """Describe a Jetson: model, system on chip, L4T release, power mode and clocks; empty on anything else.

    The power mode is read from the file that nvpmodel writes, which needs neither root nor the tool itself.
    ``jetson_clocks`` is recognised by what it does: it sets the lowest frequency to the highest.

    Source: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance".
    """
    release = read_text(root / "etc/nv_tegra_release")
    model = board_model(root)
    if not release and "jetson" not in model.lower():
        return {}
    facts = {
        "model": model,
        "soc": _tegra_chip(root),
        "L4T": _l4t(release),
        "power mode": power_mode(root),
        "CPU clocks": _cpu_clocks(root),
        "GPU clocks": _gpu_clocks(root),
        "jetson_clocks": _pinned(root),
    }
    return {name: fact for name, fact in facts.items() if fact}


def board_model(root: Path = ROOT) -> str:
    """Return the device tree's name of the board, e.g. ``Raspberry Pi 5 Model B Rev 1.0``; "" on a PC."""
    return read_text(root / "proc/device-tree/model") or read_text(root / "sys/firmware/devicetree/base/model")


def power_mode(root: Path = ROOT) -> str:
    """Return name and number of nvpmodel's mode, e.g. ``MAXN_SUPER (2)``."""
    status = re.search(r"pmode:\s*(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    if status is None:
        return ""
    number = int(status[1])
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", read_text(root / "etc/nvpmodel.conf"))
    name = next((name for mode, name in modes if int(mode) == number), "mode")
    return f"{name} ({number})"


def _l4t(release: str) -> str:
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{found[1]}.{found[2]}" if found else ""


def _tegra_chip(root: Path) -> str:
    compatible = read_text(root / "proc/device-tree/compatible").split("\0")
    return next((name.partition(",")[2] for name in compatible if name.startswith("nvidia,tegra")), "")


def _frequency_ranges(root: Path) -> list[tuple[int, int]]:
    """List the lowest and highest frequency allowed of each core, kHz."""
    cores = numbered((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    cores = cores or numbered((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))
    limits = [(read_integer(core / "scaling_min_freq"), read_integer(core / "scaling_max_freq")) for core in cores]
    return [(low, high) for low, high in limits if low is not None and high is not None]


def _cpu_clocks(root: Path) -> str:
    ranges = _frequency_ranges(root)
    return _megahertz(min(low for low, _ in ranges), max(high for _, high in ranges), 1000) if ranges else ""


def _gpu_folder(root: Path) -> Path | None:
    devices = sorted((root / "sys/class/devfreq").glob("*"))
    names = ("gpu", "ga10b", "gv11b", "gp10b", "gm20b", "gpc")
    return next((device for device in devices if any(name in device.name for name in names)), None)


def _gpu_range(root: Path) -> tuple[int, int] | None:
    folder = _gpu_folder(root)
    if folder is None:
        return None
    low, high = read_integer(folder / "min_freq"), read_integer(folder / "max_freq")
    return None if low is None or high is None else (low, high)


def _gpu_clocks(root: Path) -> str:
    limits = _gpu_range(root)
    return _megahertz(*limits, 1_000_000) if limits else ""


def _pinned(root: Path) -> str:
    ranges = _frequency_ranges(root)
    if not ranges:
        return ""
    gpu = _gpu_range(root)
    pinned = all(low == high for low, high in [*ranges, *([gpu] if gpu else [])])
    return "on" if pinned else "off"


def _megahertz(low: int, high: int, divisor: int) -> str:
    return f"{round(high / divisor)} MHz" if low == high else f"{round(low / divisor)}–{round(high / divisor)} MHz"
