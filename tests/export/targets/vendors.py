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


class NcnnMat:
    """ncnn's ``Mat``: planes of float32."""

    class PixelType:
        PIXEL_RGB = "RGB"

    @classmethod
    def from_pixels(cls, crop, kind, width, height):
        assert (kind, crop.dtype, crop.shape) == ("RGB", np.uint8, (height, width, 3))
        made = cls()
        made.values = crop.astype(np.float32)
        return made

    def substract_mean_normalize(self, mean, norm):
        self.values = (self.values - np.float32(mean)) * np.float32(norm)


class NcnnNet:
    """ncnn's ``Net`` and its extractor: loading gives 0, or else it failed."""

    def load_param(self, path):
        return 0 if Path(path).exists() else -1

    def load_model(self, path):
        self.model = path
        return 0

    def input_names(self):
        return ["in0"]

    def output_names(self):
        return ["out0"]

    def create_extractor(self):
        return self

    def input(self, name, pixels):
        assert name == "in0"
        self.pixels = pixels.values.transpose(2, 0, 1)

    def extract(self, name):
        assert name == "out0"
        return 0, features_of(self.model, self.pixels[None])[0]


def ncnn_module():
    return types.SimpleNamespace(Net=NcnnNet, Mat=NcnnMat)


class LiteRtInterpreter:
    """LiteRT's ``Interpreter``: tensors by their index, channels last."""

    def __init__(self, path):
        self.model = path

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 3}]

    def get_output_details(self):
        return [{"index": 7}]

    def set_tensor(self, index, pixels):
        assert (index, pixels.dtype, pixels.shape) == (3, np.float32, (1, 256, 128, 3))
        self.pixels = pixels

    def invoke(self):
        self.features = features_of(self.model, self.pixels)

    def get_tensor(self, index):
        assert index == 7
        return self.features


def litert_module():
    return types.SimpleNamespace(Interpreter=LiteRtInterpreter)
