"""Class of this device for the files of one engine, with the GPU or NPU that runs them."""

from __future__ import annotations

import contextlib

from reid_edge.errors import MissingExtraError
from reid_edge.manifest import EngineName
from reid_edge.runtime.cuda import find_gpu
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.engines.openvino import hardware_names
from reid_edge.tuning_record import DeviceClass

#: Providers of ONNX Runtime that compute on a GPU of CUDA.
_CUDA_PROVIDERS = ("CUDA", "TENSORRT", "NVTENSORRTRTX")


def runs_on_nvidia(engine: EngineName, device: str = "CPU") -> bool:
    """Say whether an engine computes on a GPU of CUDA when it is given a device, as ``--device`` names it."""
    provider = device.upper().partition(".")[0]
    return engine == "tensorrt" or (engine == "onnxruntime" and provider in _CUDA_PROVIDERS)


def device_class_of(engine: EngineName, device: str = "CPU") -> DeviceClass:
    """Describe this device by what decides whether a file that was fastest on another one is fastest here.

    Args:
        engine: Runs the file.
        device: What computes, as ``--device`` names it; ``GPU.0`` is ``GPU``, and ``cuda`` is ``CUDA``.
    """
    return current_device_class(_hardware(engine, device), device=device.upper().removesuffix(".0"))


def _hardware(engine: EngineName, device: str) -> str:
    """Name the GPU or NPU; "" where the CPU computes, or where there is none such here."""
    number = device.partition(".")[2] or "0"
    if runs_on_nvidia(engine, device) and number.isdigit():
        return _gpu(int(number))
    if engine == "openvino" and device != "CPU":
        with contextlib.suppress(MissingExtraError):
            return hardware_names(device, "the class of this device")
    return ""


def _gpu(index: int) -> str:
    gpu = find_gpu(index)
    return gpu.model if gpu else ""
