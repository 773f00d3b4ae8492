"""The kernels of 64-bit Arm, under an emulator of its processor: compiled by zig, run by Debian's qemu-user."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.runtime.native.library import NativeNetwork
from reid_edge.runtime.native.plan import with_ranges
from tests.conftest import REPOSITORY
from tests.osnet.random_networks import random_network
from tests.osnet.variants import VARIANTS
from tests.runtime.native.networks import cosine, expected_features, plan_of, random_pixels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 (Debian's qemu-user) is not installed"),
    pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="ziglang is not installed"),
]


@pytest.fixture(scope="module")
def run_plan(tmp_path_factory):
    """A program that runs a plan, for aarch64."""
    program = tmp_path_factory.mktemp("arm") / "run_plan"
    command = [sys.executable, "native/compile_library.py", str(program), "--target", "aarch64"]
    subprocess.run([*command, "--program", "native/run_plan.c"], cwd=REPOSITORY, check=True)
    return program


@pytest.mark.parametrize("kernels", ["neon", "portable"])
@pytest.mark.parametrize("name", ["1 primary", "6 separate AGs", "IBN"])
def test_features_on_arm(run_plan, tmp_path, name, kernels):
    size = (61, 38)
    network = random_network(OSNetConfig(width=0.3, size=size, variant=VARIANTS[name]), seed=1)
    pixels = random_pixels(3, size, seed=2)
    expected = expected_features(network, pixels)
    plan = tmp_path / "fp32.plan"
    plan.write_bytes(plan_of(network.float()))
    for threads in ("1", "2"):
        command = ["qemu-aarch64", str(run_plan), str(plan), "fp32", kernels, threads, str(len(pixels))]
        done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=True)
        assert cosine(np.frombuffer(done.stdout, np.float32).reshape(expected.shape), expected) >= 0.999999


def test_int8_on_arm_is_int8_on_x86_but_for_the_order_of_float_sums(run_plan, tmp_path):
    size = (61, 38)
    config = OSNetConfig(width=0.3, size=size, variant=VARIANTS["5 addition"])  # no gates, whose means' sums differ
    plan, pixels = plan_of(random_network(config, seed=1).float()), random_pixels(3, size, seed=2)
    plan = with_ranges(plan, NativeNetwork(plan).calibrate(pixels))
    expected = NativeNetwork(plan, precision="int8").run(pixels)
    (tmp_path / "int8.plan").write_bytes(plan)
    command = [str(run_plan), str(tmp_path / "int8.plan"), "int8", "neondot", "2", str(len(pixels))]
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", *command], input=pixels.tobytes(), capture_output=True, check=True
    )
    got = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()
