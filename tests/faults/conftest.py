from tests.upstream.conftest import certs

__all__ = ["certs"]
