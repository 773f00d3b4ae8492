"""Fixtures: a driver, and a library that builds and runs plans on it."""

from __future__ import annotations

import shutil
import sys

import pytest

from reid_edge.bundle import open_bundle
from reid_edge.export.tensorrt import build_into_bundle
from reid_edge.runtime import cuda
from reid_edge.system import nvml as nvml_module
from tests.gpu import tensorrt
from tests.gpu.driver import FakeDriver, FakeNvml


@pytest.fixture
def driver(tmp_path_factory, monkeypatch):
    """A GPU, an Orin of 8 GB, as long as the test takes."""
    made = FakeDriver(tmp_path_factory.mktemp("driver"))
    made.gpu()
    monkeypatch.setattr(cuda, "LIBRARY", str(made.path))
    return made


@pytest.fixture
def nvml(tmp_path_factory, monkeypatch):
    """NVIDIA's management library, without a GPU so far."""
    made = FakeNvml(tmp_path_factory.mktemp("nvml"))
    monkeypatch.setattr(nvml_module, "LIBRARY", str(made.path))
    return made


@pytest.fixture
def library(driver, monkeypatch):
    """TensorRT 10.3 on that GPU."""
    made = tensorrt.Fake(driver)
    install(made, monkeypatch)
    return made


@pytest.fixture
def rtx(driver, monkeypatch):
    """TensorRT-RTX on a card that it is for."""
    driver.gpu("NVIDIA GeForce RTX 4060", "8.9", 24, 8 << 30)
    made = tensorrt.Fake(driver, name="tensorrt_rtx", version="1.4.0")
    install(made, monkeypatch)
    return made


@pytest.fixture(scope="module")
def built_plans(session_bundle, tmp_path_factory):
    """A folder with a bundle and its plans in FP32 and FP16, for batches up to six, of that Orin."""
    folder = shutil.copytree(session_bundle.path, tmp_path_factory.mktemp("planned") / "bundle")
    made = FakeDriver(tmp_path_factory.mktemp("driver"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "LIBRARY", str(made.path))
        install(tensorrt.Fake(made), patch)
        build_into_bundle(open_bundle(folder), ["fp32", "fp16"], max_batch=6, on_step=lambda: None)
    return folder


@pytest.fixture
def planned(built_plans, library, tmp_path):
    """A bundle with plans of this GPU."""
    return open_bundle(shutil.copytree(built_plans, tmp_path / "planned"))


def install(fake, monkeypatch):
    """Let a library be the only one that is installed."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, fake.module if fake.module.__name__ == name else None)
