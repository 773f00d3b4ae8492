import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from reid_edge.bundle import open_bundle, write_manifest
from reid_edge.errors import TargetError
from reid_edge.runtime.engines.openvino import openvino_core
from tests.export.targets.literal import lowest_cosine

#: The part of the server's schema (its source, src/schema.cpp) that concerns us.
SCHEMA = {
    "type": "object",
    "required": ["model_config_list"],
    "additionalProperties": False,
    "properties": {
        "model_config_list": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["config"],
                "additionalProperties": False,
                "properties": {
                    "config": {
                        "type": "object",
                        "required": ["name", "base_path"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "base_path": {"type": "string"},
                            "target_device": {"type": "string"},
                            "plugin_config": {"type": "object"},
                        },
                    }
                },
            },
        }
    },
}


def test_every_model_of_the_configuration_computes_the_bundles_features(made, session_bundle):
    folder = made("openvino-model-server")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    jsonschema.validate(config, SCHEMA)
    crops, expected = session_bundle.golden()
    core = openvino_core("the test")
    limits = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.9}
    models = [entry["config"] for entry in config["model_config_list"]]
    assert [model["name"][-4:] for model in models] == list(limits)
    for model, limit in zip(models, limits.values(), strict=True):
        path = folder / model["base_path"].removeprefix("/models/") / "1" / "model.xml"
        compiled = core.compile_model(path, model["target_device"], model["plugin_config"])
        got = np.concatenate([compiled(crop[None])[0] for crop in crops])
        assert lowest_cosine(got, expected) > limit


def test_a_bundle_without_openvinos_files_is_refused(made, bundle_copy):
    onnx = tuple(held for held in bundle_copy.manifest.artifacts if held.engine == "onnxruntime")
    write_manifest(bundle_copy.path, replace(bundle_copy.manifest, artifacts=onnx, latency=()))
    with pytest.raises(TargetError, match="has no file for openvino in fp32 or fp16 or int8; it has onnxruntime/fp32"):
        made("openvino-model-server", bundle=open_bundle(bundle_copy.path))
