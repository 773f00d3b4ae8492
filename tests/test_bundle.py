import dataclasses
import json
import runpy
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from reid_edge.bundle import MANIFEST, open_bundle
from reid_edge.errors import BundleCorruptError, BundleError, BundleVersionError, EngineUnavailableError
from reid_edge.manifest import model_hash, with_artifact

SCHEMA = Path(__file__).parent.parent / "docs" / "manifest.schema.json"


def _edit(bundle, change):
    path = bundle.path / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_the_schema_in_docs_is_that_of_the_code():
    script = runpy.run_path(str(SCHEMA.with_name("make_schema.py")))
    assert SCHEMA.read_bytes() == script["manifest_schema"](), "run: python docs/make_schema.py"


def test_a_real_manifest_fits_the_schema(session_bundle):
    jsonschema.validate(json.loads((session_bundle.path / MANIFEST).read_text()), json.loads(SCHEMA.read_text()))


def test_every_listed_file_is_there_and_nothing_else(session_bundle):
    listed = {entry.path for entry in session_bundle.manifest.entries()} | {MANIFEST}
    found = {str(path.relative_to(session_bundle.path)) for path in session_bundle.path.rglob("*") if path.is_file()}
    assert found == listed


def test_a_changed_byte_is_found_in_every_file(bundle_copy):
    for entry in bundle_copy.manifest.entries():
        path = bundle_copy.path / entry.path
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(BundleCorruptError, match=r"sha256 .* copy the bundle again"):
            bundle_copy.read(entry)


def test_a_missing_file_is_found(bundle_copy):
    entry = bundle_copy.manifest.artifacts[0].files[0]
    (bundle_copy.path / entry.path).unlink()
    with pytest.raises(BundleCorruptError, match="missing"):
        bundle_copy.read(entry)


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"it has no manifest\.json.*reid-edge export"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"there is no such folder.*reid-edge export"):
        open_bundle(tmp_path / "none")


def test_a_newer_format_is_refused_even_if_nothing_else_is_understood(tmp_path):
    (tmp_path / MANIFEST).write_text('{"format_version": 2, "novelty": []}')
    with pytest.raises(BundleVersionError, match=r"format 2.*Upgrade"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format_version": "x"}',
        '{"format_version": 1}',
        "\x00",
        '{"format_version": 1, "created": "\udcff"}',
    ],
)
def test_a_broken_manifest_is_an_error(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleCorruptError):
        open_bundle(tmp_path)


def test_a_field_of_the_wrong_kind_is_named(bundle_copy):
    _edit(bundle_copy, lambda manifest: manifest["artifacts"][0].update(max_batch="many"))
    with pytest.raises(BundleCorruptError, match=r"artifacts\[\.*\d*.*max_batch"):
        open_bundle(bundle_copy.path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/model.onnx", "openvino/../../x"])
def test_a_manifest_cannot_point_outside_its_folder(bundle_copy, path):
    _edit(bundle_copy, lambda manifest: manifest["artifacts"][0]["files"][0].update(path=path))
    with pytest.raises(BundleCorruptError, match="outside"):
        open_bundle(bundle_copy.path)


def test_an_artifact_that_is_not_held_is_named_with_those_that_are(session_bundle):
    lone = dataclasses.replace(
        session_bundle,
        manifest=dataclasses.replace(session_bundle.manifest, artifacts=session_bundle.manifest.artifacts[:1]),
    )
    with pytest.raises(EngineUnavailableError, match=r"no openvino/int8; it holds onnxruntime/fp32"):
        lone.artifact("openvino", "int8")


def test_an_artifact_added_again_takes_the_others_place(session_bundle):
    manifest = session_bundle.manifest
    other = dataclasses.replace(manifest.artifacts[0], max_batch=5)
    changed = with_artifact(manifest, other)
    assert len(changed.artifacts) == len(manifest.artifacts)
    assert changed.artifacts[-1].max_batch == 5


def test_the_model_hash_names_the_function_not_the_precision(session_bundle):
    manifest = session_bundle.manifest
    same = model_hash(manifest.model.checkpoint_sha256, manifest.input, manifest.features)
    assert same == manifest.model_hash
    tensor_input = dataclasses.replace(manifest.input, dtype="float32", layout="NCHW", normalised_in="host")
    assert model_hash(manifest.model.checkpoint_sha256, tensor_input, manifest.features) == same
    for other in (
        dataclasses.replace(manifest.input, size=(128, 64)),
        dataclasses.replace(manifest.input, mean=(0.0, 0.0, 0.0)),
        dataclasses.replace(manifest.input, resize="other"),
    ):
        assert model_hash(manifest.model.checkpoint_sha256, other, manifest.features) != same


def test_golden_features_are_the_checkpoints(session_bundle, checkpoint):
    from reid_edge.export.reference import reference_features

    crops, features = session_bundle.golden()
    assert crops.shape == (8, 256, 128, 3)
    again = reference_features(checkpoint.network(), checkpoint, crops)
    np.testing.assert_allclose(features, again, atol=1e-5)  # another number of threads sums in another order
