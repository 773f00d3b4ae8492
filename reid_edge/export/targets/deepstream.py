"""NVIDIA DeepStream: an ONNX file, a configuration of nvinfer after the detector, sections for nvtracker.

Keys and values: DeepStream developer guide, "Gst-nvinfer" and "Gst-nvtracker".  Both compute
y = scale · (x − offset of the channel), with one scale for all channels; division by std is in the network.
"""

from __future__ import annotations

from reid_edge.errors import TargetError
from reid_edge.export.onnx import OUTPUT
from reid_edge.export.targets.work import MODEL, TargetWork, numbers
from reid_edge.manifest import Artifact, Precision

#: Crops that one frame may have, over all its sources; nvtracker's own examples have 100.
BATCH = 32
#: nvinfer's and nvtracker's numbers for the precision that TensorRT may use.
_NVINFER_MODE: dict[Precision, int] = {"fp32": 0, "fp16": 2}
_NVTRACKER_MODE: dict[Precision, int] = {"fp32": 0, "fp16": 1}
#: Names of the trackers and nvtracker's numbers for what the features are used for.
_TRACKERS = {"NvDCF": 2, "NvDeepSORT": 1}


def write_deepstream(work: TargetWork) -> list[str]:
    """Write the files of DeepStream; return what to do next, a line each."""
    artifact = _preferred(work)
    network = work.rgb_network(artifact, form="mean subtracted, NCHW")
    work.write_model(network.model)
    work.write("nvinfer_secondary.txt", _nvinfer(work, artifact, network.mean))
    for tracker, kind in _TRACKERS.items():
        work.write(f"ReID_{tracker}.yml", _nvtracker(work, artifact, network.mean, tracker, kind))
    return [
        "features of the detector's people: nvinfer config-file-path=nvinfer_secondary.txt, after the detector",
        "features for the tracker: put the section of ReID_NvDCF.yml or ReID_NvDeepSORT.yml into its configuration",
        "into the gallery: examples/deepstream_bridge.py, from the tensors of nvinfer",
    ]


def _preferred(work: TargetWork) -> Artifact:
    held = {artifact.precision: artifact for artifact in work.artifacts("onnxruntime")}
    if chosen := held.get("fp16") or held.get("fp32"):
        return chosen
    raise TargetError("DeepStream takes ONNX files in fp16 or fp32 here, not in int8: choose --precision fp16 or fp32.")


def _nvinfer(work: TargetWork, artifact: Artifact, mean: tuple[float, float, float]) -> str:
    height, width = work.bundle.manifest.input.size
    return f"""\
# Features of people by {work.name}, for Gst-nvinfer after a detector.
# Model hash, by which the gallery knows it: {work.bundle.manifest.model_hash}
[property]
gpu-id=0
onnx-file={MODEL}
# TensorRT's plan is written beside the ONNX file at the first start, under a name of DeepStream's.
batch-size={BATCH}
# 0 FP32, 2 FP16
network-mode={_NVINFER_MODE[artifact.precision]}
# 1 whole frames, 2 boxes of an earlier element
process-mode=2
# The detector, and the class of its people
operate-on-gie-id=1
operate-on-class-ids=0
gie-unique-id=2
# 100: no classes; the numbers themselves go into the metadata
network-type=100
output-tensor-meta=1
output-blob-names={OUTPUT}
infer-dims=3;{height};{width}
# 0 RGB
model-color-format=0
net-scale-factor=1.0
offsets={numbers(mean, ";")}
# Boxes are stretched to the input's size, as in training; 1: bilinear
maintain-aspect-ratio=0
scaling-filter=1
# Smaller boxes say little
input-object-min-height=32
input-object-min-width=16
"""


def _nvtracker(work: TargetWork, artifact: Artifact, mean: tuple[float, float, float], tracker: str, kind: int) -> str:
    height, width = work.bundle.manifest.input.size
    features = work.bundle.manifest.features
    return f"""\
%YAML:1.0
# The section ReID of a configuration for {tracker}: put it in place of the one of NVIDIA's example.
# Model hash, by which the gallery knows it: {work.bundle.manifest.model_hash}
ReID:
  reidType: {kind} # 0 none, 1 NvDeepSORT, 2 join tracks again after a gap (NvDCF), 3 both
  outputReidTensor: 1 # features go into the metadata
  batchSize: {BATCH}
  workspaceSize: 1000
  reidFeatureSize: {features.dim}
  reidHistorySize: 100
  inferDims: [3, {height}, {width}]
  networkMode: {_NVTRACKER_MODE[artifact.precision]} # 0 FP32, 1 FP16
  inputOrder: 0 # NCHW
  colorFormat: 0 # RGB
  offsets: [{numbers(mean)}]
  netScaleFactor: 1.0
  keepAspc: 0 # boxes are stretched to the input's size, as in training
  addFeatureNormalization: {int(features.norm == "l2")}
  onnxFile: {MODEL}
  modelEngineFile: {MODEL}_b{BATCH}_{artifact.precision}.engine
"""
