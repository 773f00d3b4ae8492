"""Description of this device from the system's own files; facts that they do not give are left out."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reid_edge.system.cpu import (
    cache_sizes,
    cpu_flags,
    cpu_name,
    frequency_governor,
    instruction_sets,
    isa_limit,
    physical_cores,
)
from reid_edge.system.jetson import board_model, describe_jetson
from reid_edge.system.limits import cpu_quota, usable_cpus, usable_memory
from reid_edge.system.sysfs import ROOT, numbered, read_fields, read_text

#: Packages whose versions may change a measurement; those that are installed are listed.
_LIBRARIES = (
    "reid-edge",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "tensorrt",
    "tensorrt-rtx",
    "tensorrt-rtx-cu13",
)
_NVIDIA_SMI = ("--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
_NVIDIA_SMI_SECONDS = 20
#: Intel as a PCI vendor.
_INTEL = "8086"


@dataclass(frozen=True, kw_only=True)
class Device:
    """Description of the device that a measurement was made on.

    Attributes:
        name: One line that a person would call it by: Jetson model, GPU and CPU, or CPU.
        cpu: Model name.
        architecture: ``x86_64``, ``aarch64``.
        instruction_sets: Those that matter to inference.
        isa_limit: ``ONEDNN_MAX_CPU_ISA`` where set: the machine then stands in for an older one.
        cores: Physical cores, None where the system does not say; ``cpus``: logical CPUs usable by this process.
        caches: By level, bytes.
        governor: CPU frequency governor.
        memory_bytes: Of the machine, or the container's limit where that is smaller.
        jetson: Model, power mode (nvpmodel), clocks, L4T release; empty elsewhere.
        gpus: Name, driver and compute capability of each.
        os: Distribution and kernel.
        container: Kind of container or virtual machine, and CPU quota; "" where no sign of one is found.
        libraries: Versions of the packages that take part.
        python: Version of Python.
    """

    name: str
    cpu: str
    architecture: str
    instruction_sets: tuple[str, ...] = ()
    isa_limit: str = ""
    cores: int | None = None
    cpus: int
    caches: dict[str, int] = field(default_factory=dict)
    governor: str = ""
    memory_bytes: int | None = None
    jetson: dict[str, str] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    os: str
    container: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    python: str


def describe_device(root: Path = ROOT) -> Device:
    """Describe the machine whose files lie under ``root``, and the Python that runs."""
    jetson, gpus, limit = describe_jetson(root), list_gpus(root), isa_limit()
    return Device(
        name=_name(root, jetson, gpus, limit),
        cpu=cpu_name(root),
        architecture=read_text(root / "proc/sys/kernel/arch") or platform.machine(),
        instruction_sets=tuple(instruction_sets(root)),
        isa_limit=limit,
        cores=physical_cores(root),
        cpus=usable_cpus(root),
        caches=cache_sizes(root),
        governor=frequency_governor(root),
        memory_bytes=usable_memory(root),
        jetson=jetson,
        gpus=gpus,
        os=_operating_system(root),
        container=_enclosure(root),
        libraries=_libraries(),
        python=platform.python_version(),
    )


def list_gpus(root: Path = ROOT) -> tuple[str, ...]:
    """Describe each GPU in a line: name, driver and compute capability, as far as the system gives them.

    No library that uses a GPU is loaded.
    """
    return (*(_by_nvidia_smi(root) or _by_nvidia_driver(root)), *_intel(root))


def _name(root: Path, jetson: dict[str, str], gpus: tuple[str, ...], limit: str) -> str:
    """Name the device so that two machines with different timings get different names."""
    if jetson:
        parts = [jetson.get("model", "Jetson"), jetson.get("power mode", "")]
    else:
        cpus = usable_cpus(root)
        count = f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs"
        cards = [gpu.partition(",")[0] for gpu in gpus if not gpu.startswith("Intel")]  # those come with the CPU
        cpu = re.sub(r"\((R|TM)\)| @.*| CPU\b| Processor\b", "", cpu_name(root))
        parts = [board_model(root), *cards, cpu, count]
    return ", ".join(part for part in [*parts, f"limited to {limit}" if limit else ""] if part)


def _operating_system(root: Path) -> str:
    name = read_fields(root / "etc/os-release", "=").get("PRETTY_NAME", "").strip('"')
    kernel = read_text(root / "proc/sys/kernel/osrelease") or platform.release()
    return f"{name or platform.system()}, kernel {kernel}"


def _enclosure(root: Path) -> str:
    """List what separates this process from the machine: container, virtual machine, CPU quota."""
    quota = cpu_quota(root)
    found = [_container(root), _virtual_machine(root), "" if quota is None else f"CPU quota {quota:g}"]
    return ", ".join(part for part in found if part)


def _container(root: Path) -> str:
    groups = read_text(root / "proc/self/cgroup")
    signs = {
        "Kubernetes": (root / "run/secrets/kubernetes.io").exists() or "kubepods" in groups,
        "Docker": (root / ".dockerenv").exists() or "/docker" in groups,
        "Podman": (root / "run/.containerenv").exists() or "libpod" in groups,
        "LXC": "/lxc" in groups,
    }
    return next((name for name, present in signs.items() if present), read_text(root / "run/systemd/container"))


def _virtual_machine(root: Path) -> str:
    if "microsoft" in read_text(root / "proc/sys/kernel/osrelease").lower():
        return "WSL"
    maker = read_text(root / "sys/class/dmi/id/sys_vendor")
    product = read_text(root / "sys/class/dmi/id/product_name")
    hypervisor = read_text(root / "sys/hypervisor/type") or read_text(root / "proc/device-tree/hypervisor/compatible")
    if "hypervisor" not in cpu_flags(root) and not hypervisor:
        return ""
    kind = " ".join(part for part in (maker, product) if part) or hypervisor
    return f"virtual machine ({kind})" if kind else "virtual machine"


def _libraries() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _by_nvidia_smi(root: Path) -> list[str]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    tool = shutil.which("nvidia-smi", path=os.pathsep.join(str(root / folder.lstrip("/")) for folder in folders))
    if tool is None:
        return []
    try:
        run = subprocess.run(
            [tool, *_NVIDIA_SMI], capture_output=True, text=True, check=False, timeout=_NVIDIA_SMI_SECONDS
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
