"""The street, encoded once for all tests of the camera, and the GPU that some of them pretend to have."""

from pathlib import Path

import pytest

from tests.camera.street import write_street
from tests.gpu.fixtures import built_plans, driver, library, planned

__all__ = ["built_plans", "driver", "library", "planned"]


@pytest.fixture(scope="session")
def street(tmp_path_factory) -> Path:
    """Three people who walk, on 60 frames."""
    return write_street(tmp_path_factory.mktemp("street") / "street.avi", frames=60)
