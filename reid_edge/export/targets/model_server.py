"""OpenVINO Model Server: a folder of models and ``config.json``, of a bundle's OpenVINO files.

Keys: "Starting Server", "Model Server parameters" of its documentation; its JSON schema is in its source.
"""

from __future__ import annotations

import json

from reid_edge.export.targets.work import TargetWork

#: Where the container sees the folder.
MOUNT = "/models"


def write_model_server(work: TargetWork) -> list[str]:
    """Write models and configuration; return what to do next, a line each."""
    models = []
    for artifact in work.artifacts("openvino"):
        model = f"{work.name}_{artifact.precision}"
        for entry, suffix in zip(artifact.files, ("xml", "bin"), strict=True):
            work.write(f"{model}/1/model.{suffix}", work.bundle.read(entry))
        models.append({"config": _config(model)})
    work.write("config.json", json.dumps({"model_config_list": models}, indent=2) + "\n")
    return [
        f"docker run -v FOLDER:{MOUNT}:ro -p 9000:9000 -p 8000:8000 openvino/model_server "
        f"--config_path {MOUNT}/config.json --port 9000 --rest_port 8000"
    ]


def _config(model: str) -> dict[str, object]:
    # On CPUs with AMX, OpenVINO would compute FP32 and FP16 files in bfloat16, which breaks the limit of their parity.
    plugin = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    return {"name": model, "base_path": f"{MOUNT}/{model}", "target_device": "CPU", "plugin_config": plugin}
