import dataclasses

import numpy as np
import pytest

from reid_edge.bundle import file_entry, open_bundle, write_manifest
from reid_edge.errors import BundleCorruptError, EngineUnavailableError
from reid_edge.runtime.engines import EngineOptions
from reid_edge.runtime.golden import verify_bundle


def test_every_artifact_that_runs_here_is_right(session_bundle):
    results = verify_bundle(session_bundle, "auto", "auto", EngineOptions())
    outcomes = {result.artifact.name: result.outcome for result in results}
    assert {outcome for name, outcome in outcomes.items() if not name.startswith("tensorrt")} == {"right"}
    assert len(results) == len(session_bundle.manifest.artifacts)


def test_one_engine_or_precision_can_be_asked_for(session_bundle):
    results = verify_bundle(session_bundle, "openvino", "fp16", EngineOptions(threads=1))
    assert [(result.artifact.name, result.outcome) for result in results] == [("openvino/fp16", "right")]
    only_onnx = dataclasses.replace(session_bundle.manifest, artifacts=session_bundle.manifest.artifacts[:1])
    with pytest.raises(EngineUnavailableError):
        verify_bundle(dataclasses.replace(session_bundle, manifest=only_onnx), "openvino", "auto", EngineOptions())


def test_a_changed_file_is_found_before_anything_runs(bundle_copy):
    path = bundle_copy.path / "golden.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleCorruptError, match="golden"):
        verify_bundle(bundle_copy, "auto", "auto", EngineOptions())


def test_features_that_come_out_otherwise_here_are_wrong(bundle_copy):
    """A golden file that expects something else stands for a machine that computes something else."""
    crops, features = bundle_copy.golden()
    np.savez_compressed(bundle_copy.path / "golden.npz", crops=crops, features=features[::-1])
    manifest = dataclasses.replace(bundle_copy.manifest, golden=file_entry(bundle_copy.path, "golden.npz"))
    write_manifest(bundle_copy.path, manifest)
    results = verify_bundle(open_bundle(bundle_copy.path), "openvino", "auto", EngineOptions())
    assert {result.outcome for result in results} == {"wrong"}
