"""The street, encoded once for all tests of the camera."""

from pathlib import Path

import pytest

from tests.camera.street import write_street


@pytest.fixture(scope="session")
def street(tmp_path_factory) -> Path:
    """Three people who walk, on 60 frames."""
    return write_street(tmp_path_factory.mktemp("street") / "street.avi", frames=60)
