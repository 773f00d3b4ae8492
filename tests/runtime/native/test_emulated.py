"""The kernels of 64-bit Arm, under an emulator of its processor: compiled by zig, run by Debian's qemu-user."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

from reid_edge.osnet.architecture import OSNetConfig
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
    native = REPOSITORY / "native"
    sources = [native / "run_plan.c", *(path for path in (native / "src").glob("*.c") if "avx" not in path.name)]
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    flags = ["-std=gnu11", "-O2", "-ffp-contract=fast", "-fno-sanitize=all"]
    subprocess.run([*zig, *flags, "-o", str(program), *map(str, sources), "-lm"], check=True)
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
