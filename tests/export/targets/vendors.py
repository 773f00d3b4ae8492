"""The vendors' Python modules, as far as the recipes call them, over ONNX Runtime: no quantization, literal input."""

import ast
import contextlib
import re
import types
from pathlib import Path

import cv2
import numpy as np

from tests.export.targets.literal import features_of, planes


def rknn_module():
    """RKNN-Toolkit2's ``rknn.api``: pixels are RGB; ``(x − mean_values) / std_values``."""

    class RKNN:
        def config(self, *, mean_values, std_values, target_platform):
            assert target_platform == "rk3588"
            assert std_values == [[1, 1, 1]]
            (self.mean,) = mean_values
            return 0

        def load_onnx(self, *, model, inputs, input_size_list):
            self.model = model
            assert (inputs, input_size_list) == (["crops"], [[1, 3, 256, 128]])
            return 0

        def build(self, *, do_quantization, dataset):
            self.calibration = [cv2.imread(line) for line in Path(dataset).read_text(encoding="utf-8").splitlines()]
            assert do_quantization
            assert all(crop.shape == (256, 128, 3) for crop in self.calibration)
            return 0

        def export_rknn(self, path):
            Path(path).write_bytes(b"rknn")
            return 0

        def init_runtime(self, target=None):
            return 0

        def inference(self, *, inputs, data_format):
            assert data_format == ["nhwc"]
            assert inputs[0].dtype == np.uint8
            return [features_of(self.model, planes(inputs[0], scale=1, offsets=self.mean, rgb=False))]

        def release(self):
            pass

    return types.SimpleNamespace(RKNN=RKNN)


class HailoRunner:
    """The Dataflow Compiler's ``ClientRunner``: the script's normalization, on N×H×W×3."""

    def __init__(self, *, hw_arch):
        assert hw_arch == "hailo8"

    def translate_onnx_model(self, model, name, *, net_input_shapes):
        assert (name, net_input_shapes) == ("osnet_x0_25_256x128", {"crops": [1, 3, 256, 128]})
        self.model = model

    def load_model_script(self, path):
        script = Path(path).read_text(encoding="utf-8")
        mean, std = re.search(r"normalization\((\[.*?\]), (\[.*?\])\)", script).groups()
        self.mean = ast.literal_eval(mean)
        assert ast.literal_eval(std) == [1, 1, 1]
        self.wanted = int(re.search(r"calibset_size=(\d+)", script)[1])

    def optimize(self, calibration):
        assert calibration.dtype == np.uint8
        assert calibration.shape == (self.wanted, 256, 128, 3)

    def infer_context(self, kind):
        assert kind == "quantized"
        return contextlib.nullcontext(kind)

    def infer(self, context, crops):
        features = features_of(self.model, planes(crops, scale=1, offsets=self.mean, rgb=False))
        return features.reshape(len(features), 1, 1, -1)  # as the compiler's own emulator gives them

    def compile(self):
        return b"hef"


def hailo_module():
    return types.SimpleNamespace(
        ClientRunner=HailoRunner, InferenceContext=types.SimpleNamespace(SDK_QUANTIZED="quantized")
    )
