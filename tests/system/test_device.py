import os
import platform

import numpy
import pytest

from reid_edge.system.device import describe_device, list_gpus
from reid_edge.system.jetson import describe_jetson, power_mode
from tests.system.recorded_trees import DOCKER_V2, NUC, ORIN_NANO, RASPBERRY_PI, plant

KIB = 1024


@pytest.fixture(autouse=True)
def _no_isa_limit(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def nvidia_smi(root, script):
    """A tool that answers as NVIDIA's does, where this machine's PATH would find it."""
    folder = root / os.environ["PATH"].split(os.pathsep)[0].lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_a_nuc_is_described_by_its_own_files(tmp_path):
    device = describe_device(plant(tmp_path, NUC))
    assert device.cpu == "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz"
    assert device.instruction_sets == ("AVX2", "AVX-512", "AVX512-VNNI")
    assert (device.cores, device.cpus, device.architecture) == (4, 8, "x86_64")
    assert device.governor == "powersave"
    assert device.memory_bytes == 16116660 * KIB
    assert device.os == "Ubuntu 24.04.1 LTS, kernel 6.8.0-49-generic"
    assert device.gpus == ("Intel GPU 9A49, driver i915",)
    assert (device.container, device.jetson, device.isa_limit) == ("", {}, "")
    assert device.name == "11th Gen Intel Core i5-1135G7, 8 CPUs"


def test_an_orin_nano_tells_release_power_mode_and_clocks(tmp_path):
    device = describe_device(plant(tmp_path, ORIN_NANO))
    assert device.jetson == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "soc": "tegra234",
        "L4T": "36.4.7",
        "power mode": "MAXN_SUPER (2)",
        "CPU clocks": "730–1728 MHz",
        "GPU clocks": "306–1020 MHz",
        "jetson_clocks": "off",
    }
    assert device.cpu == "Cortex-A78AE"
    assert device.instruction_sets == ("FP16 (Arm)", "dot product (Arm)")
    assert device.name == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, MAXN_SUPER (2)"


def test_jetson_clocks_shows_in_frequencies_that_cannot_move(tmp_path):
    pinned = {name: "1728000\n" for name in ORIN_NANO if name.endswith("scaling_min_freq")}
    root = plant(tmp_path, ORIN_NANO, pinned)
    assert describe_jetson(root)["jetson_clocks"] == "off", "the GPU's still move"
    plant(root, {"sys/class/devfreq/17000000.gpu/min_freq": "1020000000\n"})
    told = describe_jetson(root)
    assert (told["CPU clocks"], told["GPU clocks"], told["jetson_clocks"]) == ("1728 MHz", "1020 MHz", "on")


@pytest.mark.parametrize(("status", "told"), [("pmode:0000", "15W (0)"), ("pmode:0009", "mode (9)"), ("", "")])
def test_a_power_mode_has_the_name_that_the_configuration_gives_it(tmp_path, status, told):
    root = plant(tmp_path, ORIN_NANO, {"var/lib/nvpmodel/status": status})
    assert power_mode(root) == told


def test_a_raspberry_pi_is_no_jetson(tmp_path):
    device = describe_device(plant(tmp_path, RASPBERRY_PI))
    assert device.jetson == {}
    assert device.name == "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76, 4 CPUs"


def test_what_no_file_tells_is_absent(tmp_path):
    device = describe_device(tmp_path)
    assert (device.cores, device.memory_bytes, device.caches, device.governor) == (None, None, {}, "")
    assert (device.jetson, device.gpus, device.container) == ({}, (), "")
    assert device.cpu == device.architecture == platform.machine()


def test_container_virtual_machine_and_quota_are_named(tmp_path):
    virtual = {
        "proc/cpuinfo": NUC["proc/cpuinfo"].replace("fpu", "fpu hypervisor"),
        "sys/class/dmi/id/sys_vendor": "QEMU\n",
        "sys/class/dmi/id/product_name": "Standard PC (Q35 + ICH9, 2009)\n",
    }
    device = describe_device(plant(tmp_path, NUC, DOCKER_V2, virtual))
    assert device.container == "Docker, virtual machine (QEMU Standard PC (Q35 + ICH9, 2009)), CPU quota 1.5"
    assert (device.cpus, device.memory_bytes) == (2, 2 << 30)


def test_a_cpu_that_stands_in_for_an_older_one_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    device = describe_device(plant(tmp_path, NUC))
    assert device.isa_limit == "AVX2"
    assert device.name.endswith(", 8 CPUs, limited to AVX2")


def test_nvidia_smi_names_driver_and_compute_capability(tmp_path):
    nvidia_smi(tmp_path, 'echo "NVIDIA H200, 570.86.15, 9.0"; echo "NVIDIA L4, 570.86.15, [N/A]"')
    assert describe_device(plant(tmp_path, NUC)).name.startswith("NVIDIA H200, NVIDIA L4, 11th Gen Intel Core")
    assert list_gpus(tmp_path)[:2] == (
        "NVIDIA H200, driver 570.86.15, compute capability 9.0",
        "NVIDIA L4, driver 570.86.15",
    )


def test_a_driver_that_nvidia_smi_does_not_get_on_with_is_asked_itself(tmp_path):
    plant(tmp_path, {"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA T1000\nIRQ:   \t\t 149\n"})
    nvidia_smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    assert list_gpus(tmp_path) == ("NVIDIA T1000",)


def test_this_machine_is_described():
    device = describe_device()
    assert device.python == platform.python_version()
    assert device.libraries["numpy"] == numpy.__version__
    assert device.cpus == len(os.sched_getaffinity(0)) or "quota" in device.container
    assert str(device.cpus) in device.name or device.jetson
