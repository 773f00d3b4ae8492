"""NVIDIA Triton Inference Server: a model repository of a bundle's ONNX files and TensorRT plans.

Fields: Triton's ``model_config.proto``.  The files are those of the bundle, byte for byte.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from reid_edge.export.onnx import INPUT, OUTPUT
from reid_edge.export.targets.work import TargetWork
from reid_edge.manifest import Artifact
from reid_edge.runtime.tensorrt_library import TENSORRT

#: Engine of the bundle, Triton's backend, and the name that this backend gives its files.
_BACKENDS = {"onnxruntime": ("onnxruntime", "model.onnx"), "tensorrt": ("tensorrt", "model.plan")}
#: How long a request waits for others, so that they run as one batch.
_MAX_DELAY_US = 1000
_PREFERRED_BATCH = 8


def write_triton(work: TargetWork) -> list[str]:
    """Write a model repository: a model for each ONNX file and plan; return what to do next, a line each."""
    artifacts = work.artifacts("onnxruntime")
    artifacts += [artifact for artifact in work.bundle.manifest.artifacts if _is_wanted_plan(artifact, work)]
    for artifact in artifacts:
        backend, file_name = _BACKENDS[artifact.engine]
        model = f"{work.name}_{backend}_{artifact.precision}"
        work.write(f"{model}/config.pbtxt", _config(work, artifact, model, backend))
        work.write(f"{model}/1/{file_name}", work.bundle.read(artifact.files[0]))
        for weights in artifact.files[1:]:
            work.write(f"{model}/1/{PurePosixPath(weights.path).name}", work.bundle.read(weights))
    return ["tritonserver --model-repository=FOLDER"]


def _is_wanted_plan(artifact: Artifact, work: TargetWork) -> bool:
    """Tell whether a file is a plan that Triton can run: not one of TensorRT-RTX, which its backend cannot load."""
    return artifact.plan is not None and artifact.plan.library == TENSORRT and artifact.precision in work.precisions


def _config(work: TargetWork, artifact: Artifact, model: str, backend: str) -> str:
    manifest = work.bundle.manifest
    pixels = manifest.input.dtype == "uint8"
    height, width = manifest.input.size
    dims = (height, width, 3) if pixels else (3, height, width)
    preferred = min(_PREFERRED_BATCH, artifact.max_batch)
    takes = f"{manifest.input.color_order} " + ("pixels" if pixels else "values, normalised by the client")
    length = "scale its features to unit length" if manifest.features.norm == "l2" else "use its features as they are"
    return f"""\
# Takes {takes} of crops resized by the rule {manifest.input.resize}; {length}.
name: "{model}"
backend: "{backend}"
max_batch_size: {artifact.max_batch}
input [
  {{
    name: "{INPUT}"
    data_type: {"TYPE_UINT8" if pixels else "TYPE_FP32"}
    dims: [ {", ".join(map(str, dims))} ]
  }}
]
output [
  {{
    name: "{OUTPUT}"
    data_type: TYPE_FP32
    dims: [ {manifest.features.dim} ]
  }}
]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {_MAX_DELAY_US}
}}
parameters {{
  key: "model_hash"
  value {{ string_value: "{manifest.model_hash}" }}
}}
"""
