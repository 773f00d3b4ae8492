import pytest

from reid_edge.gallery.store import open_store
from tests.gallery.stores import ENGINES, start


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request, tmp_path_factory):
    """Each real engine in turn."""
    engine = start(request.param, tmp_path_factory.mktemp(request.param))
    yield engine
    engine.close()


@pytest.fixture
def store(engine):
    """An empty gallery in each real engine."""
    store = open_store(engine.uri())
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path):
    store = open_store(f"sqlite:{tmp_path / 'gallery.db'}")
    yield store
    store.close()
