"""A GPU for rehearsals: the tests' driver, in which the host's memory is the GPU's, and torch computes on the CPU."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import stand_in
import torch

from reid_edge.runtime import cuda
from tests.gpu.driver import FakeDriver


class _HostAsGpu(stand_in.Gpu):
    device = torch.device("cpu")

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def view(self, address: int, shape: tuple[int, ...], kind: str) -> torch.Tensor:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        held = (ctypes.c_uint8 * size).from_address(self._driver.library.fake_host(address))
        return torch.from_numpy(np.ctypeslib.as_array(held).view(kind).reshape(shape))

    def compute(self, stream: int, pool: object, work: Callable[[], None]) -> None:
        self._driver.enqueue(stream, work)

    def pool(self) -> object:
        return None


def place() -> stand_in.Gpu:
    """Let the binding of CUDA find the tests' driver, and return where torch computes."""
    driver = FakeDriver(Path(tempfile.mkdtemp()))
    driver.gpu()
    cuda.LIBRARY = str(driver.path)
    return _HostAsGpu(driver)
