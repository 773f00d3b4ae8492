"""The wheel that goes onto cameras: what is in it, and that it installs where nothing else is."""

import email
import os
import platform
import subprocess
import sys
import zipfile

import pytest

from native.compile_library import GLIBC, PROCESSORS
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

#: Whether the native engine is made for Python here.
WITH_ENGINE = (
    sys.platform == "linux"
    and sys.maxsize > 2**32
    and platform.machine() in PROCESSORS
    and platform.libc_ver()[0] == "glibc"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the backend of pyproject.toml, in an environment of its own where the package index can be reached."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)]
    environment = {**os.environ, "REID_EDGE_NATIVE": "require" if WITH_ENGINE else "auto"}
    built = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("hatchling is not here and cannot be fetched")
    assert built.returncode == 0, built.stderr
    [path] = folder.glob("reid_edge-*.whl")
    return path


def _names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_package_and_what_ships(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "reid_edge", "models", "calibration"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shipped = {
        name if name.startswith("reid_edge/") else f"reid_edge/_assets/{name}" for name in listed.stdout.splitlines()
    }
    assert shipped <= _names(wheel)
    assert "reid_edge/_assets/LICENSE" in _names(wheel)


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in _names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"reid_edge"}


@pytest.mark.skipif(not WITH_ENGINE, reason="the native engine is not made for this Python")
def test_the_wheel_holds_the_native_engine_and_is_for_this_processor_alone(wheel):
    assert "reid_edge/runtime/native/libreid_native.so" in _names(wheel)
    tag = f"py3-none-manylinux_{GLIBC[0]}_{GLIBC[1]}_{platform.machine()}"
    assert wheel.stem.endswith(f"-{tag}")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        described = email.message_from_bytes(archive.read(name))
    assert described.get_all("Tag") == [tag]
    assert described["Root-Is-Purelib"] == "false"


def test_the_metadata_has_the_readme_the_licence_and_every_extra_that_messages_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).lstrip().startswith("# reid-edge")
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {
        "openvino",
        "onnx",
        "camera",
        "gallery",
        "postgresql",
        "milvus",
        "export",
        "train",
        "explain",
        "report",
        "evaluation",
    }
    assert extras <= set(metadata.get_all("Provides-Extra"))


def test_the_installed_wheel_finds_the_checkpoint_that_ships(wheel, tmp_path):
    """The dependencies are this environment's; the package is only what the wheel installed."""
    place = str(tmp_path / "installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, str(wheel)], check=True
    )
    code = (
        f"import sys; sys.path.insert(0, {place!r}); import reid_edge; "
        "from reid_edge.osnet.shipped import find_checkpoint; "
        "print(reid_edge.__file__, find_checkpoint(None, 0.25).info.width)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(place)
    assert run.stdout.split()[1] == "0.25"
