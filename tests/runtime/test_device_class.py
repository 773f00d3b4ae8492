import os

from reid_edge.runtime.device_class import current_device_class
from reid_edge.system.cpu import instruction_sets
from tests.system.recorded_trees import DOCKER_V2, NUC, ORIN_NANO, plant


def test_the_class_of_a_device_is_what_a_choice_depends_on(tmp_path, monkeypatch):
    root = plant(tmp_path, NUC, DOCKER_V2)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    device = current_device_class("NVIDIA T4", root)
    assert (device.cpu, device.cpus) == ("11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", 2)
    assert device.instruction_sets == ("AVX2", "AVX-512", "AVX512-VNNI")
    assert (device.isa_limit, device.gpu) == ("AVX2", "NVIDIA T4")


def test_a_jetsons_power_mode_is_part_of_its_class(tmp_path):
    assert current_device_class("Orin", plant(tmp_path / "jetson", ORIN_NANO)).power_mode.endswith("(2)")
    assert current_device_class("", plant(tmp_path / "nuc", NUC)).power_mode == ""


def test_this_machine_has_a_class():
    assert current_device_class() == current_device_class()
    assert current_device_class().cpus <= len(os.sched_getaffinity(0))
    assert list(current_device_class().instruction_sets) == instruction_sets()
