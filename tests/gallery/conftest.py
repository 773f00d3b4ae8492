import pytest

from reid_edge.gallery.store import open_store
from tests.broker import make_all_certs
from tests.gallery.stores import ENGINES, start
from tests.upstream.conftest import ram_path

__all__ = ["ram_path"]


@pytest.fixture(scope="session")
def engines(tmp_path_factory):
    """Start an engine by its name, at most once."""
    started = {}

    def engine_of(name):
        if name not in started:
            started[name] = start(name, tmp_path_factory.mktemp(name))
        return started[name]

    yield engine_of
    for engine in started.values():
        engine.close()


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request, engines):
    """Each real engine in turn."""
    return engines(request.param)


@pytest.fixture
def store(engine):
    """An empty gallery in each real engine."""
    uri = engine.uri()
    store = open_store(uri)
    yield store
    store.close()
    engine.give_back(uri)


@pytest.fixture
def sqlite_store(tmp_path):
    store = open_store(f"sqlite:{tmp_path / 'gallery.db'}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """Certificates that nobody changes: of an authority, broker, gallery, collector, and the cameras camA and camB."""
    return make_all_certs(tmp_path_factory.mktemp("certs"))
