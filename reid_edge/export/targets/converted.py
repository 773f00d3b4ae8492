"""Runtimes that convert ONNX files by a tool of their own: ncnn by pnnx, LiteRT by onnx2tf.

Tools and runtimes install from PyPI.  Each folder has an ONNX file for one crop, the recipe, and the bundle's golden
crops, whose features ``reid-edge verify BUNDLE --features`` judges.

Sources of the recipes: ncnn's wiki ("use ncnn with pytorch or onnx", "FAQ ncnn protect, normalize") and its Python
bindings; ``onnx2tf --help``; LiteRT's page on its Python interpreter.
"""

from __future__ import annotations

from reid_edge.export.onnx import INPUT
from reid_edge.export.targets.network import Form
from reid_edge.export.targets.work import TargetWork, npy, numbers

#: ncnn keeps weights in float16 and computes in it on Arm, where conv1's weights for pixels are too small to be exact.
NCNN_SCALE = 1 / 64
#: Later releases have other options, earlier ones need TensorFlow.
_ONNX2TF = "onnx2tf==2.6.9"


def write_ncnn(work: TargetWork) -> list[str]:
    """Write the files for ncnn; return what to do next, a line each."""
    mean = _write_common(work, "mean subtracted, NCHW", scale=NCNN_SCALE)
    height, width = work.bundle.manifest.input.size
    work.write("convert.sh", _NCNN_CONVERT.format(size=f"[1,3,{height},{width}]"))
    work.write("run.py", _NCNN_RUN.format(mean=numbers(mean), scale=f"1 / {1 / NCNN_SCALE:g}"))
    needs = "pip install pnnx ncnn    where reid-edge[export] is installed: pnnx needs torch"
    return _steps(work, needs, "model.ncnn.param and model.ncnn.bin", "fp16")


def write_litert(work: TargetWork) -> list[str]:
    """Write the files for LiteRT (TensorFlow Lite); return what to do next, a line each."""
    _write_common(work, "pixels, NHWC")
    work.write("convert.sh", _LITERT_CONVERT.format(input=INPUT, package=_ONNX2TF))
    work.write("run.py", _LITERT_RUN)
    needs = f"pip install '{_ONNX2TF}' ai-edge-litert    in an environment of its own with Python 3.12"
    return _steps(work, needs, "model.tflite", "fp32")


def _write_common(work: TargetWork, form: Form, *, scale: float = 1.0) -> tuple[float, float, float]:
    """Write the ONNX file and the golden crops; return the mean to be subtracted, RGB."""
    network = work.rgb_network(work.bundle.artifact("onnxruntime", "fp32"), form=form, batch=1, scale=scale)
    work.write_model(network.model)
    crops, _features = work.bundle.golden()
    work.write("check.npy", npy(crops[..., ::-1]))
    return network.mean


def _steps(work: TargetWork, needs: str, files: str, precision: str) -> list[str]:
    return [
        needs,
        f"sh convert.sh    in FOLDER: {files}",
        "python run.py    in FOLDER, on the device too: features.npy",
        f"reid-edge verify {work.bundle_argument} --features FOLDER/features.npy --precision {precision}",
    ]


_NCNN_CONVERT = """\
#!/bin/sh
# Convert model.onnx into model.ncnn.param and model.ncnn.bin (weights in float16), with pnnx: pip install pnnx
set -e
pnnx model.onnx 'inputshape={size}'
test -s model.ncnn.bin
rm -f model.pnnx* model_pnnx.py model_ncnn.py
"""

_NCNN_RUN = '''\
"""Run model.ncnn.param on the crops of check.npy, as a camera would: resized to the input's size, RGB.

Needs ncnn's Python module: pip install ncnn. Writes features.npy. In C++ the calls have the same names.
"""

import ncnn
import numpy as np

net = ncnn.Net()
if net.load_param("model.ncnn.param") or net.load_model("model.ncnn.bin"):
    raise SystemExit("ncnn does not load model.ncnn.param: run convert.sh first")
features = []
for crop in np.load("check.npy"):  # N x H x W x 3 uint8, RGB
    height, width = crop.shape[:2]
    pixels = ncnn.Mat.from_pixels(crop, ncnn.Mat.PixelType.PIXEL_RGB, width, height)
    pixels.substract_mean_normalize([{mean}], [{scale}] * 3)
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], pixels)
    _, feature = extractor.extract(net.output_names()[0])
    features.append(np.array(feature))
np.save("features.npy", np.asarray(features, np.float32))
'''

_LITERT_CONVERT = """\
#!/bin/sh
# Convert model.onnx into model.tflite (float32), with onnx2tf (Python 3.12): pip install '{package}'
set -e
onnx2tf -i model.onnx -o converted -kat {input} -n
mv converted/model_float32.tflite model.tflite
rm -r converted
"""

_LITERT_RUN = '''\
"""Run model.tflite on the crops of check.npy, as a camera would: resized to the input's size, RGB, 0 to 255.

Needs LiteRT's Python module: pip install ai-edge-litert. Writes features.npy.
"""

import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("model.tflite")
interpreter.allocate_tensors()
crops, features = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
found = []
for crop in np.load("check.npy"):  # N x H x W x 3 uint8, RGB
    interpreter.set_tensor(crops, crop[None].astype(np.float32))
    interpreter.invoke()
    found.append(interpreter.get_tensor(features)[0])
np.save("features.npy", np.asarray(found, np.float32))
'''
