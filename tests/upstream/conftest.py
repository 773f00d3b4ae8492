import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.broker import make_all_certs

_RAM = Path("/dev/shm")
_RAM_BYTES = 100e6  # more than any of these tests needs


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """Certificates of all roles and two cameras; a test that adds or removes one takes ``certs_copy``."""
    return make_all_certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def foreign_certs(tmp_path_factory):
    """The same, of another authority."""
    return make_all_certs(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def certs_copy(certs, tmp_path):
    return shutil.copytree(certs, tmp_path / "certs")


@pytest.fixture
def ram_path(tmp_path):
    """A folder for tests of what an outbox does, not of its disk: commits there do not wait."""
    if not (_RAM.is_dir() and os.access(_RAM, os.W_OK) and shutil.disk_usage(_RAM).free > _RAM_BYTES):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="reid-edge-", dir=_RAM) as folder:
        yield Path(folder)
