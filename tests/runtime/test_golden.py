import dataclasses

import numpy as np
import pytest

from reid_edge.bundle import file_entry, open_bundle, write_manifest
from reid_edge.errors import BundleCorruptError, EngineUnavailableError
from reid_edge.runtime.agreement import INT8_TOLERANCE, cosine_limit, float_limit
from reid_edge.runtime.engines import EngineOptions
from reid_edge.runtime.golden import verify_bundle
from reid_edge.tuning_record import Execution


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


def drifted(features, cosine):
    """Each row turned by one angle, towards whatever direction: what a slightly different network might compute."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    aside = np.random.default_rng(0).standard_normal(features.shape)
    aside -= (aside * unit).sum(axis=1, keepdims=True) * unit
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return (cosine * unit + np.sqrt(1 - cosine**2) * aside).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"precision": "fp32"}, 0.99999),
        ({"precision": "fp16"}, 0.9999),
        ({"precision": "int8"}, None),
        ({"precision": "tuned"}, 0.99999),
        ({"precision": "tuned", "execution": Execution(streams=2)}, 0.99999),
        ({"precision": "tuned", "execution": Execution(float_type="f16")}, 0.9999),
        ({"precision": "tuned", "execution": Execution(float_type="bf16")}, None),
        ({"precision": "tuned", "int8": ("conv1",), "execution": Execution()}, None),
    ],
)
def test_a_file_all_in_float_may_differ_by_rounding_only(session_bundle, changes, limit):
    artifact = dataclasses.replace(session_bundle.artifact("openvino", "int8"), **changes)
    assert float_limit(artifact) == limit
    exported = artifact.parity.cosine_min - INT8_TOLERANCE
    assert cosine_limit(session_bundle.manifest, artifact) == (limit or exported)


def test_a_tuned_file_in_float32_that_drifts_is_wrong(bundle_copy):
    tuned = dataclasses.replace(bundle_copy.artifact("openvino", "fp32"), precision="tuned", execution=Execution())
    crops, features = bundle_copy.golden()
    outcomes = {}
    for cosine in (1.0, 0.9999):
        np.savez_compressed(bundle_copy.path / "golden.npz", crops=crops, features=drifted(features, cosine))
        golden = file_entry(bundle_copy.path, "golden.npz")
        manifest = dataclasses.replace(bundle_copy.manifest, artifacts=(tuned,), golden=golden)
        (found,) = verify_bundle(dataclasses.replace(bundle_copy, manifest=manifest), "auto", "auto", EngineOptions())
        outcomes[cosine] = found.outcome
    assert outcomes == {1.0: "right", 0.9999: "wrong"}
