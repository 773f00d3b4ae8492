"""What was measured on, read from the system's own files: what they do not tell is absent."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reid_edge.benchmark.gpus import list_gpus
from reid_edge.benchmark.jetson import board_model, describe_jetson
from reid_edge.benchmark.records import Device
from reid_edge.runtime.cpu import cpu_flags, cpu_name, instruction_sets, isa_limit
from reid_edge.runtime.limits import cpu_quota, usable_cpus, usable_memory
from reid_edge.runtime.system_files import ROOT, numbered, read_fields, read_text

#: Whatever of these is installed takes part.
_LIBRARIES = (
    "reid-edge",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "tensorrt-rtx-cu13",
    "cuda-python",
)
_CACHE_KINDS = {"Data": "d", "Instruction": "i", "Unified": ""}


def describe_device(root: Path = ROOT) -> Device:
    """Describe the machine whose files lie under ``root``, and the Python that runs this."""
    jetson, gpus, limit = describe_jetson(root), list_gpus(root), isa_limit()
    return Device(
        name=_name(root, jetson, gpus, limit),
        cpu=cpu_name(root),
        architecture=read_text(root / "proc/sys/kernel/arch") or platform.machine(),
        instruction_sets=tuple(instruction_sets(root)),
        isa_limit=limit,
        cores=_physical_cores(root),
        cpus=usable_cpus(root),
        caches=cache_sizes(root),
        governor=_governor(root),
        memory_bytes=usable_memory(root),
        jetson=jetson,
        gpus=gpus,
        os=_operating_system(root),
        container=_enclosure(root),
        libraries=_libraries(),
        python=platform.python_version(),
    )


def cache_sizes(root: Path = ROOT) -> dict[str, int]:
    """Bytes of each level (``L1d``, ``L1i``, ``L2`` …), all instances together, as lscpu adds them."""
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


def _name(root: Path, jetson: dict[str, str], gpus: tuple[str, ...], limit: str) -> str:
    """Two machines that time differently should not get the same name."""
    if jetson:
        parts = [jetson.get("model", "Jetson"), jetson.get("power mode", "")]
    else:
        cpus = usable_cpus(root)
        count = f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs"
        cards = [gpu.partition(",")[0] for gpu in gpus if not gpu.startswith("Intel")]  # those come with the CPU
        cpu = re.sub(r"\((R|TM)\)| @.*| CPU\b| Processor\b", "", cpu_name(root))
        parts = [board_model(root), *cards, cpu, count]
    return ", ".join(part for part in [*parts, f"limited to {limit}" if limit else ""] if part)


def _cpu_folders(root: Path, pattern: str) -> list[Path]:
    cpus = numbered((root / "sys/devices/system/cpu").glob("cpu[0-9]*"))
    return [folder for cpu in cpus for folder in sorted(cpu.glob(pattern))]


def _physical_cores(root: Path) -> int | None:
    folders = _cpu_folders(root, "topology")
    cores = {read_text(each / "core_cpus_list") or read_text(each / "thread_siblings_list") for each in folders}
    return len(cores - {""}) or None


def _governor(root: Path) -> str:
    return ", ".join(dict.fromkeys(filter(None, map(read_text, _cpu_folders(root, "cpufreq/scaling_governor")))))


def _operating_system(root: Path) -> str:
    name = read_fields(root / "etc/os-release", "=").get("PRETTY_NAME", "").strip('"')
    kernel = read_text(root / "proc/sys/kernel/osrelease") or platform.release()
    return f"{name or platform.system()}, kernel {kernel}"


def _enclosure(root: Path) -> str:
    """What stands between this process and the machine: container, virtual machine, CPU quota."""
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
