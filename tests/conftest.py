"""What all tests share: a parallel run, one exported bundle, real data."""

import os

from reid_edge.system.threads import configure_openmp

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

if WORKERS > 1:  # threads of two tests that spin on the same cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // WORKERS)))
configure_openmp()

import collections
import fcntl
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from reid_edge.bundle import Bundle, open_bundle
from reid_edge.progress import silent

# A shell's background jobs, as CI may be one, ignore Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the most slow tests first: no worker is left with a long one when all others are done."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Compiled models and built files of each worker's own: none are the user's, none are written by two at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def checkpoint():
    from reid_edge.osnet.shipped import find_checkpoint

    return find_checkpoint(None, 0.25)


@pytest.fixture(scope="session")
def session_bundle(checkpoint, tmp_path_factory) -> Bundle:
    """One real bundle for all workers; everything that breaks a bundle works on a copy."""
    if given := os.environ.get("REID_EDGE_TEST_BUNDLE"):  # saves a minute while developing
        return open_bundle(given)
    return _bundle_of_all_workers(checkpoint, "x0_25", tmp_path_factory)


@pytest.fixture(scope="session")
def new_site_bundle(tmp_path_factory) -> Bundle:
    """The same of the other checkpoint that ships."""
    from reid_edge.osnet.shipped import find_checkpoint

    return _bundle_of_all_workers(find_checkpoint(None, 0.25, new_site=True), "x0_25_new_site", tmp_path_factory)


def _bundle_of_all_workers(checkpoint, name: str, tmp_path_factory) -> Bundle:
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if WORKERS > 1 else base) / "session" / name
    out.parent.mkdir(exist_ok=True)
    with out.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second waits
        return open_bundle(out) if out.exists() else _exported(checkpoint, out)


def _exported(checkpoint, out: Path) -> Bundle:
    from reid_edge.export.exporter import ExportOptions, export_bundle
    from reid_edge.export.tensorrt import why_not_here

    formats = ("onnx", "openvino") if why_not_here() else ("onnx", "openvino", "tensorrt")
    return export_bundle(checkpoint, ExportOptions(out=out, formats=formats, time_files=False), silent)


@pytest.fixture
def bundle_copy(session_bundle, tmp_path) -> Bundle:
    return open_bundle(shutil.copytree(session_bundle.path, tmp_path / "copy"))


class RealData:
    """The folder of real data; a test that asks it for something that is not there is skipped."""

    def __truediv__(self, name: str) -> Path:
        folder = os.environ.get("REID_EDGE_DATA")
        if not folder:
            pytest.skip("REID_EDGE_DATA is not set: no real data here")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"{path} is not there (docs/development.md)")
        return path


@pytest.fixture(scope="session")
def real_data() -> RealData:
    return RealData()


@pytest.fixture(autouse=True)
def warnings_are_heard(caplog) -> None:
    """Whatever a library that another test has used did to the root logger."""
    caplog.set_level(logging.WARNING)


class Clock:
    """A clock of seconds, which stands still until ``now`` is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_crops(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Crops of different sizes, blocky as pictures are."""
    crops = []
    for _ in range(count):
        height, width = rng.integers(30, 400), rng.integers(15, 200)
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        crops.append(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width]))
    return crops
