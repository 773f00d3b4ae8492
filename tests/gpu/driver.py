"""The driver of driver.c and the library of nvml.c, compiled and loaded, with what tests may ask of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest


@cache
def _compiled(source: str) -> bytes:
    compiler = [found] if (found := shutil.which("cc")) else [sys.executable, "-m", "ziglang", "cc"]
    if len(compiler) > 1 and find_spec("ziglang") is None:
        pytest.skip("no C compiler here, and no ziglang")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "library.so")
        code = Path(__file__).with_name(source)
        subprocess.run([*compiler, "-shared", "-fPIC", "-O1", "-pthread", "-o", path, code], check=True)
        return path.read_bytes()


class FakeDriver:
    """What tests may ask of the driver; each has a copy of its own, with its own state.

    Args:
        folder: Where the library is written, under the name that a real one has.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "libcuda.so.1"
        self.path.write_bytes(_compiled("driver.c"))
        self.library = ctypes.CDLL(str(self.path))
        self.library.fake_used.restype = ctypes.c_size_t
        self.library.fake_host.argtypes, self.library.fake_host.restype = (ctypes.c_uint64,), ctypes.c_void_p
        self.library.fake_enqueue.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        for name in ("fake_is_recording", "fake_break_recording"):
            getattr(self.library, name).argtypes = (ctypes.c_void_p,)
        self._work: list[object] = []

    def gpu(self, name="Orin", capability="8.7", processors=8, memory=8 << 30, count=1):
        major, minor = map(int, capability.split("."))
        self.library.fake_gpu(name.encode(), major, minor, processors, ctypes.c_size_t(memory), count)

    def fail(self, function: str, status: int, after: int = 0):
        """Let calls of a function fail, from the one after so many."""
        self.library.fake_fault(function.encode(), status, after)

    def enqueue(self, stream: int, work) -> None:
        """Give a stream work of the host; it is done when the stream is waited for, or a recording is launched."""
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: work())
        self._work.append(function)
        assert self.library.fake_enqueue(stream, ctypes.cast(function, ctypes.c_void_p), None) == 0

    def is_recording(self, stream: int) -> bool:
        return bool(self.library.fake_is_recording(stream))

    @property
    def left(self) -> tuple[int, int, int]:
        """Bytes, streams and graphs that nobody has freed."""
        return self.library.fake_used(), self.library.fake_streams(), self.library.fake_graphs()

    @property
    def launches(self) -> int:
        return self.library.fake_launches()


class FakeNvml:
    """What tests may ask of NVIDIA's management library; each has a copy of its own.

    Args:
        folder: Where the library is written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "libnvidia-ml.so.1"
        self.path.write_bytes(_compiled("nvml.c"))
        self._library = ctypes.CDLL(str(self.path))

    def add(self, name: str, *, status: int = 0) -> None:
        """Add a GPU, whose counter answers with a status."""
        self._library.fake_add(name.encode(), status)

    def use(self, millijoules: int, gpu: int = 0) -> None:
        """Let a GPU use energy."""
        self._library.fake_use(gpu, ctypes.c_ulonglong(millijoules))

    def fail(self, status: int, gpu: int = 0) -> None:
        """Let a GPU's counter answer with a status from now on."""
        self._library.fake_fail(gpu, status)

    def refuse(self, status: int) -> None:
        """Let the library refuse to start."""
        self._library.fake_init(status)
