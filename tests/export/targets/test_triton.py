import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format

from reid_edge.bundle import file_entry, open_bundle, write_manifest
from reid_edge.manifest import PlanStamp, with_artifact
from tests.export.targets.literal import features_of, lowest_cosine

MODELS = [f"osnet_x0_25_256x128_onnxruntime_{precision}" for precision in ("fp16", "fp32", "int8")]


@pytest.fixture(scope="module")
def schema():
    """Triton's own schema, out of its client, where that is installed; its other modules need more packages."""
    client = importlib.util.find_spec("tritonclient")
    if client is None:
        pytest.skip("tritonclient is not installed; .ci/run installs it")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_model_repository_has_every_onnx_file_as_the_bundle_has_it(made, session_bundle):
    folder = made("triton")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == MODELS
    crops, expected = session_bundle.golden()
    for model, limit in zip(MODELS, (0.9999, 0.99999, 0.9), strict=True):
        held = (folder / model / "1" / "model.onnx").read_bytes()
        assert held == session_bundle.read(session_bundle.artifact("onnxruntime", model[-4:]).files[0])
        assert lowest_cosine(features_of(folder / model / "1" / "model.onnx", crops), expected) > limit


def test_configurations_say_what_the_files_take_and_give(made):
    for model in MODELS:
        text = (made("triton", force=True) / model / "config.pbtxt").read_text(encoding="utf-8")
        assert re.search(r'name: "crops"\s+data_type: TYPE_UINT8\s+dims: \[ 256, 128, 3 \]', text)
        assert re.search(r'name: "features"\s+data_type: TYPE_FP32\s+dims: \[ 512 \]', text)


def test_tritons_own_schema_takes_the_configurations(made, session_bundle, schema):
    folder = made("triton")
    for model in MODELS:
        config = text_format.Parse((folder / model / "config.pbtxt").read_text(encoding="utf-8"), schema.ModelConfig())
        assert (config.name, config.backend, config.max_batch_size) == (model, "onnxruntime", 32)
        assert [list(held.dims) for held in (*config.input, *config.output)] == [[256, 128, 3], [512]]
        assert config.parameters["model_hash"].string_value == session_bundle.manifest.model_hash
        assert list(config.dynamic_batching.preferred_batch_size) == [8]


def with_plan(bundle, library):
    (bundle.path / "fp16.plan").write_bytes(b"a plan")
    source = bundle.artifact("onnxruntime", "fp16")
    stamp = PlanStamp(
        library=library,
        version="10.3.0",
        device="Orin",
        compute_capability="8.7",
        built_precision={},
        batches=(1, 4, 4),
    )
    plan = replace(source, engine="tensorrt", files=(file_entry(bundle.path, "fp16.plan"),), max_batch=4, plan=stamp)
    write_manifest(bundle.path, with_artifact(bundle.manifest, plan))
    return open_bundle(bundle.path)


def test_a_plan_of_the_bundle_is_a_model_of_its_own(made, bundle_copy):
    folder = made("triton", bundle=with_plan(bundle_copy, "tensorrt")) / "osnet_x0_25_256x128_tensorrt_fp16"
    assert (folder / "1" / "model.plan").read_bytes() == b"a plan"
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "tensorrt"\nmax_batch_size: 4\n' in config
    assert "preferred_batch_size: [ 4 ]" in config


def test_a_plan_of_tensorrt_rtx_is_left_out_since_triton_cannot_run_it(made, bundle_copy):
    folder = made("triton", bundle=with_plan(bundle_copy, "tensorrt_rtx"))
    assert not list(folder.glob("*_tensorrt_*"))
