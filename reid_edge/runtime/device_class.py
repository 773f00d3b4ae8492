"""Class of this device, as tuned bundles record it."""

from __future__ import annotations

from pathlib import Path

from reid_edge.system.cpu import cpu_name, instruction_sets, isa_limit
from reid_edge.system.jetson import describe_jetson, power_mode
from reid_edge.system.limits import usable_cpus
from reid_edge.system.sysfs import ROOT
from reid_edge.tuning_record import DeviceClass


def current_device_class(gpu: str = "", root: Path = ROOT, *, device: str = "CPU") -> DeviceClass:
    """Describe this device by the facts that decide whether a choice made on another device holds here.

    Args:
        gpu: Name of the GPU or NPU, for files that run there; for CUDA :attr:`reid_edge.runtime.cuda.Gpu.model`.
        root: Folder that holds the system's files.
        device: What computes, as ``--device`` names it.
    """
    return DeviceClass(
        cpu=cpu_name(root),
        instruction_sets=tuple(instruction_sets(root)),
        cpus=usable_cpus(root),
        isa_limit=isa_limit(),
        gpu=gpu,
        power_mode=power_mode(root) if describe_jetson(root) else "",
        device=device,
    )
