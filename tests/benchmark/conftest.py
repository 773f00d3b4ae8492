"""The GPU that some of these tests pretend to have."""

from tests.gpu.fixtures import driver

__all__ = ["driver"]
