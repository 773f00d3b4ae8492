"""The README's commands and code are run as they stand there."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import reid_edge
from reid_edge.camera.detectors.catalogue import catalogue
from tests.camera.street import walker, write_street
from tests.conftest import REPOSITORY, random_crops

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


#: What each command takes besides, so that less is trained, timed and tried.
SHORTER = {
    "train": "--epochs 1 --partial",
    "benchmark": "--rounds 2 --budget-seconds 3",
    "tune": "--budget-minutes 0.5",
}


def without_download(command):
    """Put ``motion`` in place of a detector of the catalogue, which would have to be downloaded."""
    return re.sub(r"--detector \S+", "--detector motion", command)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(session_bundle, tmp_path_factory):
    """A folder as the README's reader has it after the first command."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "osnet_x0_25_256x128").symlink_to(session_bundle.path)
    (folder / "crops").mkdir()
    write_street(folder / "street.avi")
    cv2.imwrite(str(folder / "person.jpg"), walker(0))
    rng = np.random.default_rng(0)
    for number, crop in enumerate(random_crops(rng, 3)):
        cv2.imwrite(str(folder / "crops" / f"{number}.png"), crop)
    cv2.imwrite(str(folder / "frame.jpg"), cv2.resize(random_crops(rng, 1)[0], (640, 480)))
    for split in ("query", "bounding_box_test", "bounding_box_train"):
        (folder / "market1501" / split).mkdir(parents=True)
    for number, (identity, camera) in enumerate(itertools.product(range(2, 212), (1, 1, 2))):
        name = f"{identity:04d}_c{camera}s1_{number:06d}_00.jpg"
        cv2.imwrite(str(folder / "market1501" / "bounding_box_train" / name), crop)
    for split, camera in (("query", 1), ("bounding_box_test", 2)):
        cv2.imwrite(str(folder / "market1501" / split / f"0001_c{camera}s1_000001_00.jpg"), crop)
    return folder


def test_ci_runs_the_blocks_that_set_up_test_and_build_the_wheel():
    setup, tests = blocks("sh")[:2]
    assert "reid-edge export --width 0.25" in setup
    assert "pytest" in tests
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "readme_block 1" in script
    assert "readme_block 2" in script
    assert "pip wheel" in blocks("sh")[3]
    assert "readme_block 4" in script


def _commands():
    return [line for block in blocks("sh")[2:] for line in block.splitlines() if line.startswith("reid-edge")]


@pytest.mark.slow
@pytest.mark.parametrize("command", _commands())
def test_every_command_of_the_readme_runs(folder, command):
    for word, options in SHORTER.items():
        if f" {word} " in command:
            command += f" {options}"
    command = without_download(command)
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}:{os.environ['PATH']}"}
    run = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if "build" in command and run.returncode == 1 and "TensorRT" in run.stderr:
        pytest.skip("no TensorRT library here")
    assert run.returncode == 0, run.stderr


def test_the_detectors_that_the_readme_names_are_in_the_catalogue():
    named = set(re.findall(r"(?:--detector|detector get) (\S+)", README))
    assert named
    assert named <= set(catalogue())


def test_the_wheel_that_the_readme_names_has_the_version_of_this_release():
    assert set(re.findall(r"reid_edge-([\d.]+)-py3", README)) == {reid_edge.__version__}


def test_the_readmes_python_runs(folder):
    [code] = blocks("python")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_the_readme_links_only_to_files_that_exist():
    for target in re.findall(r"\]\(((?!http)[^)#]+)", README):
        assert (REPOSITORY / target).exists(), target
