import dataclasses
from datetime import datetime, timezone

import pytest

from reid_edge.system.conditions import changes, read_conditions
from tests.system.recorded_trees import DOCKER_V2, NUC, ORIN_NANO, plant


def test_a_nuc_tells_load_temperatures_frequencies_and_throttling(tmp_path):
    condition = read_conditions(plant(tmp_path, NUC))
    assert condition.load_1min == 0.31
    assert condition.temperatures_c == {"acpitz": 27.8, "coretemp Package id 0": 46.0, "coretemp Core 0": 44.0}
    assert condition.frequencies_mhz == pytest.approx([1500 + cpu / 1000 for cpu in range(8)])
    cores = {f"cpu{cpu}": cpu for cpu in range(8)}
    assert condition.throttle_events == cores | {"package 0": 42, "Processor (cooling_device0)": 2}


def test_the_moment_is_told_in_utc():
    then = datetime.fromisoformat(read_conditions().at)
    assert abs((datetime.now(timezone.utc) - then).total_seconds()) < 60


def test_an_orin_tells_over_current_events_and_leaves_sensors_out_that_are_off(tmp_path):
    condition = read_conditions(plant(tmp_path, ORIN_NANO))
    assert condition.temperatures_c == {"cpu-thermal": 48.125}
    assert condition.throttle_events == {"under-voltage (oc1)": 0, "instantaneous over-current (oc3)": 37}


def test_a_cpu_quota_that_bites_counts_as_throttling(tmp_path):
    assert read_conditions(plant(tmp_path, DOCKER_V2)).throttle_events == {"CPU quota": 7}


def test_frequencies_come_from_cpuinfo_where_there_is_no_cpufreq(tmp_path):
    root = plant(tmp_path, {"proc/cpuinfo": NUC["proc/cpuinfo"]})
    assert read_conditions(root).frequencies_mhz == tuple(2400.0 + cpu for cpu in range(8))


def test_two_sensors_of_one_name_are_both_kept(tmp_path):
    disks = {f"sys/class/hwmon/hwmon{n}/{file}": text for n, degrees in ((1, "31000"), (2, "35000"))
             for file, text in (("name", "nvme"), ("temp1_label", "Composite"), ("temp1_input", degrees))}  # fmt: skip
    told = read_conditions(plant(tmp_path, disks)).temperatures_c
    assert told == {"nvme Composite": 31.0, "nvme Composite #2": 35.0}


def test_what_no_file_tells_is_absent(tmp_path):
    condition = read_conditions(tmp_path)
    assert (condition.load_1min, condition.temperatures_c, condition.frequencies_mhz) == (None, {}, ())
    assert condition.throttle_events == {}


def test_a_quiet_cool_run_needs_no_note(tmp_path):
    condition = read_conditions(plant(tmp_path, NUC))
    warmer = {name: degrees + 9 for name, degrees in condition.temperatures_c.items()}
    assert changes(condition, dataclasses.replace(condition, temperatures_c=warmer), tmp_path) == ()


def test_throttling_heat_and_load_are_noted(tmp_path):
    root = plant(tmp_path, NUC)
    before = dataclasses.replace(read_conditions(root), load_1min=4.5)
    plant(
        root,
        {
            "sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count": "9\n",
            "sys/class/hwmon/hwmon3/temp1_input": "88000\n",
            "sys/class/hwmon/hwmon3/temp2_input": "80000\n",
        },
    )
    assert changes(before, read_conditions(root), root) == (
        "Throttled while timing: cpu3 counted 6 more times.",
        "Heated up while timing: coretemp Package id 0 from 46 to 88 °C.",
        "Busy before the first round: load average 4.50.",
    )
