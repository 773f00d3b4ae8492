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


def device_class_of(engine: EngineName, device: str = "CPU") -> DeviceClass:
    """Describe this device by what decides whether a file that was fastest on another one is fastest here.

    Args:
        engine: Runs the file.
        device: What computes, as ``--device`` names it; ``GPU.0`` is ``GPU``, and ``cuda`` is ``CUDA``.
    """
    return current_device_class(_hardware(engine, device), device=device.upper().removesuffix(".0"))


def _hardware(engine: EngineName, device: str) -> str:
    """Name the GPU or NPU; "" where the CPU computes, or where there is none such here."""
    if engine == "tensorrt":
        return _gpu(0)
    if engine == "openvino" and device != "CPU":
        with contextlib.suppress(MissingExtraError):
            return hardware_names(device, "the class of this device")
    kind, _, number = device.upper().partition(".")
    if engine == "onnxruntime" and kind in _CUDA_PROVIDERS and (number or "0").isdigit():
        return _gpu(int(number or 0))
    return ""


def _gpu(index: int) -> str:
    gpu = find_gpu(index)
    return gpu.model if gpu else ""
