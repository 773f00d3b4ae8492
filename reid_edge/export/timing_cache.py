"""What TensorRT has measured of its kernels, kept between builds: the next plan of this GPU is built in less time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from reid_edge.errors import EngineError
from reid_edge.runtime.compiled_cache import CompiledCache, key_of, open_cache
from reid_edge.runtime.cuda import Gpu, driver_version
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.extractor import default_cache_dir
from reid_edge.runtime.tensorrt_library import make


@contextmanager
def kept_timings(library: ModuleType, gpu: Gpu | None, config: Any) -> Iterator[None]:
    """Let a build use what was measured before, and keep what it measures.

    Times hold for one release of the library, one GPU, its driver and its power mode.  TensorRT-RTX measures nothing
    when it builds.

    Args:
        library: TensorRT.
        gpu: The GPU that plans are built on; None: nothing is kept.
        config: The builder's configuration.
    """
    folder = default_cache_dir()
    cache = open_cache(folder / "compiled") if folder else None
    if cache is None or gpu is None or not hasattr(config, "create_timing_cache"):
        yield
        return
    facts = ("kernel times", library.__name__, library.__version__, str(gpu), driver_version())
    key = key_of((*facts, current_device_class().power_mode))
    held = _filled(library, config, cache, key)
    yield
    measured = bytes(config.get_timing_cache().serialize())
    if measured != held:
        cache.store(key, measured)


def _filled(library: ModuleType, config: Any, cache: CompiledCache, key: str) -> bytes:
    """Give the configuration the times that are kept; return them, b"" for none."""
    held = cache.take(key)
    try:
        if held is not None and _is_taken(library, config, held):
            cache.put_back(key)
            return held
    except EngineError:
        pass  # TensorRT cannot read them
    if held is not None:
        cache.discard(key, "TensorRT refuses it")
    _is_taken(library, config, b"")
    return b""


def _is_taken(library: ModuleType, config: Any, times: bytes) -> bool:
    timings = make(library, "a timing cache", lambda: config.create_timing_cache(times))
    return bool(config.set_timing_cache(timings, False))
