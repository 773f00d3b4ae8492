"""The library on processors that are emulated: each takes kernels that it can run, and computes the same features.

qemu says nothing about speed.  x86: the library as it is installed.  Arm: the same sources, by zig, as one program.
"""

import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from native import compile_library
from reid_edge.runtime.native import library
from reid_edge.runtime.native.library import NativeNetwork
from reid_edge.runtime.native.plan import with_ranges
from tests.conftest import REPOSITORY
from tests.runtime.native.networks import cosine, needs_library, random_pixels
from tests.runtime.native.plans import CONCATENATION, FEATURE, GATE_EACH, TRANSITION, RandomPlan

DRIVER = Path(__file__).with_name("driver.c")
#: A small network of each fusion, with 64 numbers, so that a cosine says something.
PLANS = {
    "one gate": RandomPlan(size=(64, 32), stem=16, feature_dim=64),
    "odd sizes, a gate each": RandomPlan(
        size=(61, 35), feature_dim=64, stem=13, fusion=GATE_EACH, lengths=(1, 2, 3, 4)
    ),
    "instance norms, concatenation": RandomPlan(
        size=(48, 24),
        feature_dim=64,
        stem=24,
        stem_norm=1,
        fusion=CONCATENATION,
        blocks=((20, 40, 0, 1, TRANSITION), (17, 33, 0, 2, FEATURE)),
    ),
}

#: Height and width of pictures, and of what they become: larger, smaller, averaged in blocks, as they are.
RESIZED = [
    ((1, 1), (13, 13)),
    ((20, 9), (64, 32)),
    ((97, 41), (61, 35)),
    ((40, 300), (64, 32)),
    ((61, 35), (61, 35)),
    ((128, 64), (64, 32)),
    ((200, 131), (61, 35)),
    ((700, 301), (64, 32)),
]

pytestmark = [
    needs_library,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares other processors with x86"),
]


def _needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if not shutil.which(name)]
    return pytest.mark.skipif(
        bool(missing), reason=f"not installed: {', '.join(missing)} (apt-get install qemu-user gcc)"
    )


@pytest.fixture(scope="module")
def x86_driver(tmp_path_factory) -> Path:
    """Return a program that loads the installed library."""
    driver, folder = tmp_path_factory.mktemp("x86") / "driver", library.LIBRARY.parent
    sources = [str(DRIVER), f"-I{REPOSITORY}/native/src", str(library.LIBRARY), f"-Wl,-rpath,{folder}"]
    subprocess.run(["cc", "-std=gnu11", *sources, "-o", str(driver)], check=True)
    return driver


@pytest.fixture(scope="module")
def arm_driver(tmp_path_factory) -> Path:
    """Return a static program for aarch64."""
    driver = tmp_path_factory.mktemp("aarch64") / "driver"
    command = [
        sys.executable,
        "native/compile_library.py",
        str(driver),
        "--target",
        "aarch64",
        "--program",
        str(DRIVER),
    ]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return driver


def _run(emulator: list[str], driver: Path, *arguments: object) -> list[str]:
    command = [*emulator, str(driver), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode} {done.stderr}"
    return done.stdout.split()


def _assert_same_features(emulator: list[str], driver: Path, folder: Path, plan: RandomPlan) -> None:
    """Features of all kernels that run there, in all precisions, against this processor's portable ones."""
    pixels = random_pixels(3, plan.size, seed=1)
    here = NativeNetwork(plan.encode(), kernels="portable")
    calibrated, expected = with_ranges(plan.encode(), here.calibrate(pixels)), here.run(pixels)
    (folder / "plan").write_bytes(calibrated)
    (folder / "pixels").write_bytes(pixels.tobytes())
    for precision, least in ((0, 0.999999), (1, 0.999), (2, 0.98)):
        for kernels in _run(emulator, driver, "-", "-", 0, precision, 1, "list"):
            files = (folder / "plan", folder / "pixels", len(pixels))
            for threads in (1, 2):
                name, *numbers = _run(emulator, driver, *files, precision, threads, kernels)
                assert name == kernels
                assert cosine(np.array(numbers, np.float32).reshape(expected.shape), expected) >= least, kernels


def _assert_same_pixels(emulator: list[str], driver: Path, folder: Path) -> None:
    """Pixels of all kernels that run there, within one level of this processor's, which are OpenCV's."""
    rng, picture = np.random.default_rng(5), folder / "picture"
    sets = [(each, name) for each in range(3) for name in _run(emulator, driver, "-", "-", 0, each, 1, "list")]
    assert sets
    for (height, width), size in RESIZED:
        frame = rng.integers(0, 256, (height, width + 5, 3), np.uint8)
        picture.write_bytes(frame.tobytes())
        expected = library.resize(frame[:, :width], size, "fp32", "portable")
        for precision, kernels in sets:
            shapes = (frame.strides[0], height, width, *size)
            numbers = _run(emulator, driver, "resize", picture, precision, kernels, *shapes)
            difference = np.array(numbers, int).reshape(expected.shape) - expected
            assert np.abs(difference).max() <= 1, (kernels, height, width)


@_needs("qemu-x86_64", "cc")
@pytest.mark.parametrize(("cpu", "fastest"), [("Nehalem", "portable"), ("IvyBridge", "portable"), ("Haswell", "avx2")])
def test_an_x86_processor_takes_kernels_that_it_can_run(cpu, fastest, x86_driver):
    assert _run(["qemu-x86_64", "-cpu", cpu], x86_driver, "-", "-", 0, 0, 1, "list")[0] == fastest


@_needs("qemu-x86_64", "cc")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("cpu", ["Nehalem", "Haswell", "max"])
def test_features_on_x86_processors(cpu, plan, x86_driver, tmp_path):
    _assert_same_features(["qemu-x86_64", "-cpu", cpu], x86_driver, tmp_path, plan)


@_needs("qemu-x86_64", "cc")
@pytest.mark.parametrize("cpu", ["Nehalem", "Haswell"])
def test_resized_pixels_on_x86_processors(cpu, x86_driver, tmp_path):
    _assert_same_pixels(["qemu-x86_64", "-cpu", cpu], x86_driver, tmp_path)


@_needs("qemu-aarch64")
@pytest.mark.slow
@pytest.mark.skipif(find_spec("ziglang") is None, reason="not installed: ziglang (pip install ziglang)")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "max"])
def test_features_on_arm_processors(cpu, plan, arm_driver, tmp_path):
    _assert_same_features(["qemu-aarch64", "-cpu", cpu], arm_driver, tmp_path, plan)


@_needs("qemu-aarch64")
@pytest.mark.slow
@pytest.mark.skipif(find_spec("ziglang") is None, reason="not installed: ziglang (pip install ziglang)")
@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_resized_pixels_on_arm_processors(cpu, arm_driver, tmp_path):
    _assert_same_pixels(["qemu-aarch64", "-cpu", cpu], arm_driver, tmp_path)


@pytest.mark.slow
@_needs("cc")
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_teams_of_more_threads_than_cores_lose_no_wake_up_and_have_no_races(sanitizer, tmp_path):
    source, folder, driver = Path(__file__).with_name("team_driver.c"), REPOSITORY / "native/src", tmp_path / "driver"
    flags = ["-std=gnu11", "-O1", "-g", f"-fsanitize={sanitizer}", f"-I{folder}"]
    subprocess.run(["cc", *flags, str(source), str(folder / "team.c"), "-lpthread", "-o", str(driver)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [str(driver), "100"], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr


@pytest.fixture(scope="module")
def share_driver(tmp_path_factory) -> Path:
    """Return a program that shares one crop among up to 12 threads, with the thread sanitizer in it."""
    folder, objects = tmp_path_factory.mktemp("share"), []
    flags = ["-std=gnu11", "-O1", "-DSMALL_CODE", "-fsanitize=thread", f"-I{REPOSITORY}/native/src"]
    for source in [*(REPOSITORY / "native/src").glob("*.c"), Path(__file__).with_name("share_driver.c")]:
        processor, extra = compile_library.INSTRUCTION_SETS.get(source.stem, (platform.machine(), []))
        if processor == platform.machine():
            objects.append(str(folder / f"{source.stem}.o"))
            subprocess.run(["cc", *flags, *extra, "-c", str(source), "-o", objects[-1]], check=True)
    driver = folder / "driver"
    subprocess.run(["cc", *flags, *objects, "-lm", "-lpthread", "-o", str(driver)], check=True)
    return driver


@pytest.mark.slow
@_needs("cc")
@pytest.mark.parametrize("precision", [0, 2])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_one_crop_on_any_number_of_threads_gives_the_same_feature_without_races(
    precision, plan, share_driver, tmp_path
):
    pixels = random_pixels(1, plan.size, seed=1)
    calibrated = with_ranges(plan.encode(), NativeNetwork(plan.encode(), kernels="portable").calibrate(pixels))
    (tmp_path / "plan").write_bytes(calibrated)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    assert _run([], share_driver, tmp_path / "plan", tmp_path / "pixels", precision) == ["the", "same"]


@pytest.mark.parametrize("of_python", [("", ""), ("musl", "1.2")])
def test_no_library_is_made_for_a_python_that_could_not_load_it(monkeypatch, tmp_path, of_python):
    monkeypatch.setattr(compile_library.platform, "libc_ver", lambda: of_python)
    with pytest.raises(compile_library.BuildError, match="this Python is another"):
        compile_library.build(tmp_path / "library.so")
