import configparser
import json

import pytest

from reid_edge.errors import TargetError
from tests.export.targets.literal import features_of, lowest_cosine, planes

#: Keys of the group [property] that an element after the detector reads (Gst-nvinfer's documentation).
NVINFER_KEYS = {
    "batch-size", "gie-unique-id", "gpu-id", "infer-dims", "input-object-min-height", "input-object-min-width",
    "int8-calib-file", "maintain-aspect-ratio", "model-color-format", "model-engine-file", "net-scale-factor",
    "network-input-order", "network-mode", "network-type", "offsets", "onnx-file", "operate-on-class-ids",
    "operate-on-gie-id", "output-blob-names", "output-tensor-meta", "process-mode", "scaling-filter",
    "secondary-reinfer-interval", "symmetric-padding", "tensor-meta-pool-size", "workspace-size",
}  # fmt: skip
#: Keys of the section ReID (Gst-nvtracker's documentation, "Re-ID").
REID_KEYS = {
    "addFeatureNormalization", "batchSize", "calibrationTableFile", "colorFormat", "inferDims", "inputOrder",
    "keepAspc", "minVisibility4GalleryUpdate", "modelEngineFile", "netScaleFactor", "networkMode", "offsets",
    "onnxFile", "outputReidTensor", "reidFeatureSize", "reidHistorySize", "reidType", "useVPICropScaler",
    "workspaceSize",
}  # fmt: skip


def nvinfer(folder):
    parser = configparser.ConfigParser()
    parser.read(folder / "nvinfer_secondary.txt", encoding="utf-8")
    return dict(parser["property"])


def reid(path):
    """Read the section ReID: a mapping of one level, with numbers, lists and names."""
    first, *lines = (line.partition(" #")[0] for line in path.read_text(encoding="utf-8").splitlines())
    assert first == "%YAML:1.0"
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "ReID:"
    pairs = [line.strip().split(": ", 1) for line in lines[1:]]
    return {key: json.loads(value) if value[0] in "0123456789[" else value for key, value in pairs}


def test_nvinfers_preprocessing_gives_the_bundles_features(made, session_bundle):
    folder = made("deepstream")
    keys = nvinfer(folder)
    assert keys.keys() <= NVINFER_KEYS
    assert (keys["infer-dims"], keys["model-color-format"], keys["network-mode"]) == ("3;256;128", "0", "2")
    assert (keys["process-mode"], keys["network-type"], keys["output-tensor-meta"]) == ("2", "100", "1")
    crops, expected = session_bundle.golden()
    offsets = [float(value) for value in keys["offsets"].split(";")]
    inputs = planes(crops, scale=float(keys["net-scale-factor"]), offsets=offsets)
    assert lowest_cosine(features_of(folder / keys["onnx-file"], inputs), expected) > 0.9999


@pytest.mark.parametrize(("tracker", "kind"), [("NvDCF", 2), ("NvDeepSORT", 1)])
def test_nvtrackers_preprocessing_gives_the_bundles_features(made, session_bundle, tracker, kind):
    folder = made("deepstream", precisions=("fp32",))
    keys = reid(folder / f"ReID_{tracker}.yml")
    assert keys.keys() <= REID_KEYS
    assert (keys["reidType"], keys["reidFeatureSize"], keys["addFeatureNormalization"]) == (kind, 512, 1)
    assert (keys["inferDims"], keys["inputOrder"], keys["colorFormat"]) == ([3, 256, 128], 0, 0)
    assert keys["networkMode"] == 0
    crops, expected = session_bundle.golden()
    inputs = planes(crops, scale=keys["netScaleFactor"], offsets=keys["offsets"])
    assert lowest_cosine(features_of(folder / keys["onnxFile"], inputs), expected) > 0.99999


def test_int8_alone_is_refused(made):
    with pytest.raises(TargetError, match="choose --precision fp16 or fp32"):
        made("deepstream", precisions=("int8",))
