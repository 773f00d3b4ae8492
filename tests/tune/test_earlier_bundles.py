"""Bundles that releases before the grid tuned, block by block, open and run."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.benchmark.assembly import arithmetic_of
from reid_edge.bundle import MANIFEST, open_bundle
from reid_edge.runtime import Extractor
from reid_edge.runtime.device_class import current_device_class
from tests.conftest import REPOSITORY

EARLIER = REPOSITORY / "benchmarks" / "results" / "tuned-x0_25-8-crops.manifest.json"


@pytest.fixture
def earlier(session_bundle, tmp_path):
    """The manifest of an earlier release's tuning, with the plain FP32 file in the place of the tuned one."""
    out = tmp_path / "earlier"
    shutil.copytree(session_bundle.path, out)
    manifest = json.loads((out / MANIFEST).read_text())
    old = json.loads(EARLIER.read_text())
    files = next(one for one in manifest["artifacts"] if (one["engine"], one["precision"]) == ("openvino", "fp32"))
    (tuned,) = (one for one in old["artifacts"] if one["precision"] == "tuned")
    manifest["artifacts"].append({**tuned, "files": files["files"]})
    manifest["tuning"] = old["tuning"]
    manifest["tuning"]["trials"][-1]["heat"] = "second heat"  # which a later release wrote
    (out / MANIFEST).write_text(json.dumps(manifest))
    return open_bundle(out)


def test_its_evidence_is_read(earlier):
    trials = earlier.manifest.tuning.trials
    assert len(trials) == 61
    assert {"pruned", "slower", "chosen"} <= {trial.outcome for trial in trials}
    assert any("collapse conv3.0" in trial.rewrite and "conv3.0 streams" in trial.int8 for trial in trials)


def test_its_tuned_file_runs_here_as_it_was_tuned(earlier):
    here = replace(earlier.manifest.tuning, device=current_device_class())
    bundle = replace(earlier, manifest=replace(earlier.manifest, tuning=here))
    extractor = Extractor(bundle, cache_dir=None)
    assert extractor.artifact.name == "openvino/tuned"
    assert extractor([np.zeros((40, 20, 3), np.uint8)]).shape == (1, 512)


def test_int8_by_halves_of_blocks_is_still_held_against_the_int8_peak(earlier):
    halves = tuple(f"conv{stage}.{number} ends" for stage in (2, 3, 4) for number in (0, 1))
    assert arithmetic_of(replace(earlier.artifact("openvino", "tuned"), int8=halves)) == "int8"
