"""The GPU that these tests pretend to have."""

from tests.gpu.fixtures import built_plans, driver, library, planned, rtx

__all__ = ["built_plans", "driver", "library", "planned", "rtx"]
