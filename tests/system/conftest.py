"""The GPU that these tests pretend to have."""

from tests.gpu.fixtures import nvml

__all__ = ["nvml"]
