import os
import subprocess

import cv2
import numpy as np
import pytest

from reid_edge.errors import CalibrationError
from reid_edge.export.targets.table import export_target
from reid_edge.runtime.device_features import verify_features
from tests.export.targets.literal import features_of
from tests.export.targets.recipes import run_recipe
from tests.export.targets.vendors import hailo_module, rknn_module

#: Options of QAIRT's tools (Qualcomm's pages on qairt-converter and qairt-quantizer) that a recipe may use.
TOOL = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --input_network|--output_path|--source_model_input_layout|--desired_input_layout) ;;
    --input_dlc|--output_dlc|--input_list|--use_per_channel_quantization) ;;
    --*) echo "unknown option $word" >&2; exit 2 ;;
  esac
done
while [ $# -gt 0 ]; do
  case "$1" in --output_path|--output_dlc) cp model.onnx "$2" ;; --input_list) test -s "$2" || exit 3 ;; esac
  shift
done
"""


def is_right(folder, features, precision="fp32"):
    return not verify_features(folder, folder / features, precision).reasons


def test_rockchips_recipe_gives_the_bundles_features(made, monkeypatch):
    folder = made("rknn")
    modules = {"rknn": rknn_module(), "rknn.api": rknn_module()}
    run_recipe(folder, "compile.py", ["rk3588"], modules, monkeypatch)
    assert (folder / "model.rknn").read_bytes() == b"rknn"
    assert is_right(folder, "simulated.npy")
    run_recipe(folder, "compile.py", ["rk3588", "--on-device"], modules, monkeypatch)
    assert is_right(folder, "features.npy", "int8")


def test_hailos_recipe_gives_the_bundles_features(made, monkeypatch):
    folder = made("hailo")
    run_recipe(folder, "compile.py", ["hailo8"], {"hailo_sdk_client": hailo_module()}, monkeypatch)
    assert (folder / "model.hef").read_bytes() == b"hef"
    assert is_right(folder, "emulated.npy")
    compile((folder / "run.py").read_text(encoding="utf-8"), "run.py", "exec")


def test_qualcomms_recipe_gives_the_bundles_features(made, tmp_path):
    folder = made("qnn")
    for name in ("qairt-converter", "qairt-quantizer"):
        (tmp_path / name).write_text(TOOL)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "compile.sh"], cwd=folder, check=True, env=environment)
    for number, line in enumerate((folder / "check.txt").read_text().splitlines()):
        name, path = line.split(":=")
        assert name == "crops"
        pixels = np.fromfile(folder / path, "<f4").reshape(1, 256, 128, 3)
        result = folder / "output" / f"Result_{number}"
        result.mkdir(parents=True)
        features_of(folder / "model.int8.dlc", pixels).tofile(result / "features.raw")
    assert is_right(folder, "output")


def test_calibration_crops_are_the_same_for_every_compiler(made, calibration):
    expected = calibration.calibration[..., ::-1]
    hailo, rknn, qnn = made("hailo"), made("rknn"), made("qnn")
    np.testing.assert_array_equal(np.load(hailo / "calibration.npy"), expected)
    listed = (rknn / "dataset.txt").read_text().splitlines()
    images = np.stack([cv2.imread(str(rknn / name)) for name in listed])
    np.testing.assert_array_equal(images[..., ::-1], expected)
    raws = [line.split(":=")[1] for line in (qnn / "calibration.txt").read_text().splitlines()]
    np.testing.assert_array_equal(
        np.stack([np.fromfile(qnn / name, "<f4") for name in raws]).reshape(expected.shape), expected
    )


def test_crops_that_judge_do_not_calibrate(made, calibration):
    check = np.load(made("hailo") / "check.npy")
    assert len(check) == 8 + len(calibration.held_out)
    assert not {crop.tobytes() for crop in check} & {crop.tobytes() for crop in calibration.calibration[..., ::-1]}


def test_crops_of_another_size_are_refused(session_bundle, calibration, tmp_path):
    small = type(calibration)(
        calibration.calibration[:, ::2, ::2], calibration.held_out[:, ::2, ::2], calibration.record
    )
    with pytest.raises(CalibrationError, match=r"have \(128, 64\) pixels, the bundle's input \(256, 128\)"):
        export_target(session_bundle, "hailo", tmp_path / "out", precisions=("fp32",), calibration=small)
    assert not (tmp_path / "out").exists()
