import os
import threading
import time

import pytest

from reid_edge.system import nvml as nvml_module
from reid_edge.system.energy import find_meter, missing_reason
from reid_edge.system.power_rails import Sampler, find_rails, integrate
from tests.system.recorded_trees import (
    AGX_ORIN_RAILS,
    AMD_RAPL,
    HWMON,
    INTEL_RAPL,
    NANO_RAILS,
    ORIN_NANO,
    POWERCAP,
    THOR_RAILS,
    plant,
)


@pytest.fixture(autouse=True)
def no_nvml(monkeypatch, tmp_path):
    """The machine that runs the tests may have an NVIDIA GPU."""
    monkeypatch.setattr(nvml_module, "LIBRARY", str(tmp_path / "libnvidia-ml.so.1"))


def test_rapl_adds_package_and_memory_and_nothing_that_they_hold_already(tmp_path):
    root = plant(tmp_path, INTEL_RAPL)
    meter = find_meter(root)
    assert meter.source == "RAPL (package-0, dram)"
    with meter.measuring() as reading:
        plant(
            root,
            {
                f"{POWERCAP}/intel-rapl:0/energy_uj": "262143200000\n",  # 0.2 J
                f"{POWERCAP}/intel-rapl:0:0/energy_uj": "99999999999\n",
                f"{POWERCAP}/intel-rapl:0:2/energy_uj": "5500000\n",  # 0.5 J
                f"{POWERCAP}/intel-rapl:1/energy_uj": "999999999\n",
                f"{POWERCAP}/intel-rapl-mmio:0/energy_uj": "999999999\n",
            },
        )
        time.sleep(0.05)
    assert reading.joules == pytest.approx(0.7)
    assert 0.05 <= reading.seconds < 5


def test_a_counter_that_starts_again_from_zero_goes_on_counting(tmp_path):
    root = plant(tmp_path, INTEL_RAPL)
    with find_meter(root).measuring() as reading:
        plant(root, {f"{POWERCAP}/intel-rapl:0/energy_uj": "671150\n"})
    assert reading.joules == pytest.approx((262143328850 - 262143000000 + 671150) / 1e6)
    assert reading.joules == pytest.approx(1.0)


def test_amd_counts_under_the_same_names_without_memory(tmp_path):
    root = plant(tmp_path, AMD_RAPL)
    meter = find_meter(root)
    assert meter.source == "RAPL (package-0)"
    with meter.measuring() as reading:
        plant(root, {f"{POWERCAP}/intel-rapl:0/energy_uj": "3500000\n"})
    assert reading.joules == pytest.approx(2.5)


def test_a_counter_that_does_not_move_gives_no_figure(tmp_path):
    with find_meter(plant(tmp_path, AMD_RAPL)).measuring() as reading:
        pass
    assert reading.joules is None


def test_a_counter_that_vanishes_gives_no_figure(tmp_path):
    root = plant(tmp_path, AMD_RAPL)
    with find_meter(root).measuring() as reading:
        (root / POWERCAP / "intel-rapl:0/energy_uj").unlink()
    assert reading.joules is None


@pytest.mark.parametrize("how", ["permission", "folder"])
def test_a_counter_that_only_root_may_read_is_explained(tmp_path, how):
    root = plant(tmp_path, AMD_RAPL)
    counter = root / POWERCAP / "intel-rapl:0/energy_uj"
    if how == "permission":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        counter.chmod(0)
    else:
        counter.unlink()
        counter.mkdir()  # another file that open() refuses, for tests that run as root
    assert find_meter(root) is None
    assert missing_reason(root) == (
        f"No energy: this user may not read {counter}; run as root, or: sudo chmod a+r {counter}"
    )


def test_a_device_without_counters_says_so_and_one_with_them_says_nothing(tmp_path):
    assert find_meter(tmp_path) is None
    assert missing_reason(tmp_path).startswith("No energy: this device has no counter")
    assert missing_reason(plant(tmp_path, AMD_RAPL)) == ""


def test_the_rail_that_supplies_the_module_is_its_energy(tmp_path):
    meter = find_meter(plant(tmp_path, ORIN_NANO))
    assert meter.source == "INA3221 (VDD_IN)"
    with meter.measuring() as reading:
        time.sleep(0.1)
    assert reading.joules == pytest.approx(5.0 * 2.0 * reading.seconds, rel=0.05)
    assert reading.seconds >= 0.1


def test_where_no_rail_supplies_the_module_all_are_added(tmp_path):
    meter = find_meter(plant(tmp_path, AGX_ORIN_RAILS))
    assert meter.source == "INA3221 (VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 + VDDQ_VDD2_1V8AO)"
    with meter.measuring() as reading:
        time.sleep(0.1)
    watts = 0.843 * 6.170 + 0.780 * 3.437 + 4.968 * 0.953 + 1.800 * 0.341
    assert reading.joules == pytest.approx(watts * reading.seconds, rel=0.05)


def test_a_thors_monitor_of_the_supply_measures_the_whole_in_microwatts(tmp_path):
    meter = find_meter(plant(tmp_path, THOR_RAILS))
    assert meter.source == "INA238 (VIN)"
    assert {rail.name: rail.watts() for rail in find_rails(tmp_path)} == {"VDD_GPU": 7.2, "VIN": pytest.approx(39)}
    with meter.measuring() as reading:
        time.sleep(0.1)
    assert reading.joules == pytest.approx(39 * reading.seconds, rel=0.05)


def test_the_older_driver_gives_milliwatts(tmp_path):
    meter = find_meter(plant(tmp_path, NANO_RAILS))
    assert meter.source == "INA3221 (POM_5V_IN)"
    assert [rail.watts() for rail in find_rails(tmp_path)] == pytest.approx([3.212, 0.12, 0.9])


def test_power_that_changes_is_integrated(tmp_path):
    root = plant(tmp_path, ORIN_NANO)
    with find_meter(root).measuring() as reading:
        time.sleep(0.2)
        plant(root, {f"{HWMON}/curr1_input": "4000\n"})  # 10 W, then 20 W
        time.sleep(0.2)
    assert reading.joules / reading.seconds == pytest.approx(15, abs=2)


def test_the_sum_is_the_trapezoidal_rule():
    assert integrate([(0.0, 10.0), (1.0, 20.0), (3.0, 20.0)]) == 15 + 40
    assert integrate([(0.0, 10.0)]) is None


def test_rails_that_stop_answering_give_no_figure_and_leave_no_thread(tmp_path):
    root = plant(tmp_path, ORIN_NANO)
    meter = find_meter(root)
    (root / HWMON / "curr1_input").unlink()
    with meter.measuring() as reading:
        time.sleep(0.05)
    assert reading.joules is None
    assert "power rails" not in {thread.name for thread in threading.enumerate()}


def test_sampling_ends_with_the_block_that_fails(tmp_path):
    rails = find_rails(plant(tmp_path, ORIN_NANO))
    with pytest.raises(KeyboardInterrupt), Sampler(rails):
        raise KeyboardInterrupt
    assert "power rails" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def nvml(no_nvml, nvml):
    """After the machine's own has been taken away."""
    return nvml


def test_the_energy_of_an_nvidia_gpu_is_read(tmp_path, nvml):
    nvml.add("NVIDIA T4")
    nvml.use(5_000_000_000)
    meter = find_meter(tmp_path)
    assert (meter.source, meter.hardware) == ("NVML (NVIDIA T4)", {"gpu"})
    with meter.measuring() as reading:
        nvml.use(2500)
        time.sleep(0.05)
    assert reading.joules == pytest.approx(2.5)
    assert 0.05 <= reading.seconds < 5
    assert missing_reason(tmp_path).startswith("No energy of the CPU: this device has no counter")


def test_what_the_cpu_uses_is_added_to_what_the_gpus_use(tmp_path, nvml):
    nvml.add("NVIDIA T4")
    nvml.add("NVIDIA L4")
    root = plant(tmp_path, AMD_RAPL)
    meter = find_meter(root)
    assert (meter.source, meter.hardware) == ("RAPL (package-0) + NVML (NVIDIA T4, NVIDIA L4)", {"cpu", "gpu"})
    with meter.measuring() as reading:
        plant(root, {f"{POWERCAP}/intel-rapl:0/energy_uj": "3500000\n"})  # 2.5 J
        nvml.use(1000)
        nvml.use(500, gpu=1)
    assert reading.joules == pytest.approx(4.0)
    with meter.measuring() as reading:
        nvml.use(1000)
    assert reading.joules is None  # of the CPU nothing is known
    assert missing_reason(root) == ""


def test_a_jetsons_rails_hold_its_gpu_already(tmp_path, nvml):
    nvml.add("Orin")
    assert find_meter(plant(tmp_path, ORIN_NANO)).source == "INA3221 (VDD_IN)"


@pytest.mark.parametrize("status", [1, 9, 18, 999])
def test_a_library_that_refuses_gives_no_meter(tmp_path, nvml, status):
    nvml.add("NVIDIA T4")
    nvml.refuse(status)
    assert find_meter(tmp_path) is None


def test_a_gpu_without_a_counter_is_left_out(tmp_path, nvml):
    nvml.add("GeForce GTX 1080", status=3)
    assert find_meter(tmp_path) is None
    nvml.add("NVIDIA T4")
    assert find_meter(tmp_path).source == "NVML (NVIDIA T4)"


def test_a_gpu_that_stops_answering_gives_no_figure(tmp_path, nvml):
    nvml.add("NVIDIA T4")
    with find_meter(tmp_path).measuring() as reading:
        nvml.use(1000)
        nvml.fail(15)  # lost
    assert reading.joules is None


def test_a_counter_that_began_again_gives_no_figure(tmp_path, nvml):
    nvml.add("NVIDIA T4")
    nvml.use(5000)
    with find_meter(tmp_path).measuring() as reading:
        nvml.use(-4000)
    assert reading.joules is None


def test_a_library_without_the_functions_gives_no_meter(tmp_path, monkeypatch):
    monkeypatch.setattr(nvml_module, "LIBRARY", "libc.so.6")
    assert find_meter(tmp_path) is None
