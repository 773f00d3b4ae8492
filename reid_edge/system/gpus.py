"""Names of this device's GPUs, without loading a library that uses them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from reid_edge.system.sysfs import ROOT, numbered, read_fields

_NVIDIA_SMI = ("--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
_LONGEST_SECONDS = 20
_INTEL = "8086"


def list_gpus(root: Path = ROOT) -> tuple[str, ...]:
    """Describe each GPU in a line: name, driver and compute capability, as far as the system gives them."""
    return (*(_by_nvidia_smi(root) or _by_nvidia_driver(root)), *_intel(root))


def _by_nvidia_smi(root: Path) -> list[str]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    tool = shutil.which("nvidia-smi", path=os.pathsep.join(str(root / folder.lstrip("/")) for folder in folders))
    if tool is None:
        return []
    try:
        run = subprocess.run(
            [tool, *_NVIDIA_SMI], capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs must not keep a CPU's benchmark from running
        return []
    lines = run.stdout.splitlines() if run.returncode == 0 else []
    return [_line(*line.split(", ")) for line in lines if line.strip()]


def _line(name: str, driver: str = "", compute_capability: str = "", *_more: str) -> str:
    parts = [("", name), ("driver ", driver), ("compute capability ", compute_capability)]
    return ", ".join(prefix + part.strip() for prefix, part in parts if part.strip() not in {"", "[N/A]", "N/A"})


def _by_nvidia_driver(root: Path) -> list[str]:
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    return [model for card in cards if (model := read_fields(card).get("Model"))]


def _intel(root: Path) -> list[str]:
    """List Intel's integrated and discrete GPUs, by their PCI device numbers."""
    cards = numbered(path for path in (root / "sys/class/drm").glob("card*") if path.name[4:].isdigit())
    facts = [read_fields(card / "device/uevent", "=") for card in cards]
    found = [(fact.get("PCI_ID", "").partition(":"), fact.get("DRIVER", "")) for fact in facts]
    return [f"Intel GPU {number}, driver {driver}" for (vendor, _, number), driver in found if vendor == _INTEL]
