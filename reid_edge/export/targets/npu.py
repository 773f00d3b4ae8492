"""Compilers for NPUs: Hailo's Dataflow Compiler, Rockchip's RKNN-Toolkit2, Qualcomm's AI Engine Direct (QNN).

Each gets an ONNX file for one crop, crops to calibrate INT8 with (made from the checkpoint, no photographs, unless a
folder was given), crops to check the device with, and a recipe.  Features that come back are judged by
``reid-edge verify FOLDER --features``.

Sources of the recipes: Hailo Dataflow Compiler user guide ("Model Scripts", "Parsing", "Model Optimization" tutorials)
and the model zoo's scripts; RKNN-Toolkit2 user guide and examples; Qualcomm's pages on ``qairt-converter``,
``qairt-quantizer`` and ``qnn-net-run``.
"""

from __future__ import annotations

import cv2

from reid_edge.export.onnx import INPUT
from reid_edge.export.targets.network import Form
from reid_edge.export.targets.work import TargetWork, npy, numbers
from reid_edge.types import Image


def write_hailo(work: TargetWork, check: Image) -> list[str]:
    """Write the files for Hailo's Dataflow Compiler; return what to do next, a line each.

    Args:
        work: The target.
        check: Crops that check the device, N×H×W×3 uint8, RGB.
    """
    mean = _write_network(work, "mean subtracted, NCHW")
    work.write("calibration.npy", npy(work.calibration_crops))
    work.write("check.npy", npy(check))
    work.write("model.alls", _HAILO_SCRIPT.format(mean=numbers(mean), crops=len(work.calibration_crops)))
    work.write("compile.py", _HAILO_COMPILE.format(name=work.name, input=INPUT, size=_input_size(work)))
    work.write("run.py", _HAILO_RUN)
    return [
        "python compile.py hailo8    in FOLDER, where the Dataflow Compiler is installed: model.hef, emulated.npy",
        "python run.py               on the device: features.npy",
        "reid-edge verify FOLDER --features FOLDER/features.npy --precision int8",
    ]


def write_rknn(work: TargetWork, check: Image) -> list[str]:
    """Write the files for RKNN-Toolkit2; return what to do next, a line each.

    Crops are PNG files, which the toolkit reads as RGB: of ``.npy`` files its releases expect different layouts.

    Args:
        work: The target.
        check: Crops that check the device, N×H×W×3 uint8, RGB.
    """
    mean = _write_network(work, "mean subtracted, NCHW")
    names = _write_each(work, "calibration", work.calibration_crops, "png")
    work.write("dataset.txt", "".join(f"{name}\n" for name in names))
    work.write("check.npy", npy(check))
    work.write("compile.py", _RKNN_COMPILE.format(mean=numbers(mean), input=INPUT, size=_input_size(work)))
    return [
        "python compile.py rk3588    in FOLDER, where RKNN-Toolkit2 is installed: model.rknn, simulated.npy",
        "python compile.py rk3588 --on-device    the same with a board on USB or the network: features.npy",
        "reid-edge verify FOLDER --features FOLDER/features.npy --precision int8",
    ]


def write_qnn(work: TargetWork, check: Image) -> list[str]:
    """Write the files for Qualcomm's AI Engine Direct; return what to do next, a line each.

    Args:
        work: The target.
        check: Crops that check the device, N×H×W×3 uint8, RGB.
    """
    _write_network(work, "pixels, NHWC")
    for kind, crops in (("calibration", work.calibration_crops), ("check", check)):
        names = _write_each(work, kind, crops, "raw")
        work.write(f"{kind}.txt", "".join(f"{INPUT}:={name}\n" for name in names))
    work.write("compile.sh", _QNN_COMPILE.format(input=INPUT))
    return [
        "sh compile.sh    in FOLDER, where QAIRT is installed and its envsetup.sh was read: model.int8.dlc",
        "qnn-net-run --backend libQnnHtp.so --dlc_path model.int8.dlc --input_list check.txt --output_dir output",
        "reid-edge verify FOLDER --features FOLDER/output --precision int8",
    ]


def _write_network(work: TargetWork, form: Form) -> tuple[float, float, float]:
    """Write the ONNX file of FP32, which compilers quantize themselves; return the mean to be subtracted, RGB."""
    artifact = work.bundle.artifact("onnxruntime", "fp32")
    network = work.rgb_network(artifact, form=form, batch=1)
    work.write_model(network.model)
    return network.mean


def _write_each(work: TargetWork, folder: str, crops: Image, suffix: str) -> list[str]:
    names = [f"{folder}/{number:04d}.{suffix}" for number in range(len(crops))]
    for name, crop in zip(names, crops, strict=True):
        work.write(name, _png(crop) if suffix == "png" else crop.astype("<f4").tobytes())
    return names


def _png(crop: Image) -> bytes:
    return cv2.imencode(".png", crop[..., ::-1])[1].tobytes()


def _input_size(work: TargetWork) -> str:
    height, width = work.bundle.manifest.input.size
    return f"[1, 3, {height}, {width}]"


_HAILO_SCRIPT = """\
normalization1 = normalization([{mean}], [1.0, 1.0, 1.0])
model_optimization_config(calibration, batch_size=8, calibset_size={crops})
pre_quantization_optimization(equalization, policy=disabled)
post_quantization_optimization(finetune, policy=disabled)
post_quantization_optimization(bias_correction, policy=enabled)
"""

_HAILO_COMPILE = '''\
"""Compile model.onnx into model.hef, and emulate the result on the crops of check.npy.

Usage: python compile.py hailo8 | hailo8l | hailo15h | hailo10h …
Needs Hailo's Dataflow Compiler. Writes model.hef, and emulated.npy for: reid-edge verify . --features emulated.npy
"""

import sys

import numpy as np
from hailo_sdk_client import ClientRunner, InferenceContext

runner = ClientRunner(hw_arch=sys.argv[1])
runner.translate_onnx_model("model.onnx", "{name}", net_input_shapes={{"{input}": {size}}})
runner.load_model_script("model.alls")
runner.optimize(np.load("calibration.npy"))  # N x H x W x 3 uint8, RGB
with runner.infer_context(InferenceContext.SDK_QUANTIZED) as context:
    features = np.asarray(runner.infer(context, np.load("check.npy")))
np.save("emulated.npy", features.reshape(len(features), -1).astype(np.float32))
with open("model.hef", "wb") as file:
    file.write(runner.compile())
'''

_HAILO_RUN = '''\
"""Run model.hef on a Hailo device, on the crops of check.npy.

Needs HailoRT's Python module. Writes features.npy for: reid-edge verify . --features features.npy
"""

import numpy as np
from hailo_platform import (
    HEF,
    ConfigureParams,
    FormatType,
    HailoStreamInterface,
    InferVStreams,
    InputVStreamParams,
    OutputVStreamParams,
    VDevice,
)

crops = np.load("check.npy")  # N x H x W x 3 uint8, RGB
hef = HEF("model.hef")
with VDevice() as device:
    group = device.configure(hef, ConfigureParams.create_from_hef(hef, interface=HailoStreamInterface.PCIe))[0]
    inputs = InputVStreamParams.make(group, format_type=FormatType.UINT8)
    outputs = OutputVStreamParams.make(group, format_type=FormatType.FLOAT32)
    name = hef.get_input_vstream_infos()[0].name
    with InferVStreams(group, inputs, outputs) as streams, group.activate(group.create_params()):
        features = next(iter(streams.infer({name: crops}).values()))
np.save("features.npy", features.reshape(len(crops), -1))
'''

_RKNN_COMPILE = '''\
"""Compile model.onnx into model.rknn, and run the result on the crops of check.npy: simulated, or on a device.

Usage: python compile.py rk3588 | rk3576 | rk3568 … [--on-device]
Needs RKNN-Toolkit2. Writes model.rknn, and simulated.npy or features.npy for: reid-edge verify . --features FILE
"""

import sys

import numpy as np
from rknn.api import RKNN


def done(status, what):
    if status != 0:
        sys.exit(f"RKNN-Toolkit2 could not {{what}} (status {{status}})")


platform, on_device = sys.argv[1], "--on-device" in sys.argv
rknn = RKNN()
done(rknn.config(mean_values=[[{mean}]], std_values=[[1, 1, 1]], target_platform=platform), "set the input")
done(rknn.load_onnx(model="model.onnx", inputs=["{input}"], input_size_list=[{size}]), "read model.onnx")
done(rknn.build(do_quantization=True, dataset="dataset.txt"), "build")
done(rknn.export_rknn("model.rknn"), "write model.rknn")
done(rknn.init_runtime(target=platform) if on_device else rknn.init_runtime(), "start")
crops = np.load("check.npy")  # N x H x W x 3 uint8, RGB
features = [rknn.inference(inputs=[crop[None]], data_format=["nhwc"])[0].reshape(-1) for crop in crops]
np.save("features.npy" if on_device else "simulated.npy", np.asarray(features, np.float32))
rknn.release()
'''

_QNN_COMPILE = """\
#!/bin/sh
# Compile model.onnx into model.dlc (float) and model.int8.dlc, with Qualcomm's QAIRT.
# The input is N x H x W x 3, RGB, 0 to 255, as the raw files have it in float32: the layout stays as it is.
set -e
qairt-converter --input_network model.onnx --output_path model.dlc \\
    --source_model_input_layout {input} NHWC --desired_input_layout {input} NHWC
qairt-quantizer --input_dlc model.dlc --input_list calibration.txt --output_dlc model.int8.dlc \\
    --use_per_channel_quantization
"""
