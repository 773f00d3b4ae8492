import dataclasses

import pytest

from reid_edge.benchmark import latency
from reid_edge.benchmark.latency import measure
from reid_edge.errors import EngineError


def test_an_artifact_is_timed_in_a_process_of_its_own(session_bundle, monkeypatch):
    monkeypatch.setattr(latency, "BUDGET_SECONDS", 0.5)
    timed = measure(session_bundle.path, session_bundle.artifact("onnxruntime", "fp32"))
    assert [(entry.artifact, entry.crops) for entry in timed] == [("onnxruntime/fp32", 1), ("onnxruntime/fp32", 8)]
    assert 0 < timed[0].median_ms < timed[1].median_ms


def test_a_failed_timing_says_what_happened(bundle_copy):
    path = bundle_copy.path / "model.onnx"
    path.write_bytes(b"")
    artifact = dataclasses.replace(bundle_copy.artifact("onnxruntime", "fp32"))
    with pytest.raises(EngineError, match=r"timing onnxruntime/fp32 failed[\s\S]*BundleCorruptError"):
        measure(bundle_copy.path, artifact)
