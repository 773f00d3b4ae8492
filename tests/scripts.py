"""The scripts under models/ as modules."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

from tests.conftest import REPOSITORY


@contextlib.contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    """Load ``models/NAME.py`` while the block runs."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "models" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look it up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
