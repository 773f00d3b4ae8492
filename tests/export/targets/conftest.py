import pytest

from reid_edge.export.calibration import shipped_set_of
from reid_edge.export.targets.table import export_target, needs_calibration


@pytest.fixture(scope="session")
def calibration(session_bundle):
    manifest = session_bundle.manifest
    return shipped_set_of(manifest.model.checkpoint_sha256, manifest.input.size)


@pytest.fixture
def made(session_bundle, calibration, tmp_path):
    """A function that makes the files of a target, and returns their folder."""

    def make(target, *, bundle=session_bundle, precisions=("fp32", "fp16", "int8"), force=False):
        crops = calibration if needs_calibration(target) else None
        export_target(bundle, target, tmp_path / target, precisions=precisions, calibration=crops, force=force)
        return tmp_path / target

    return make
