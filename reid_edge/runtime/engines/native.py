"""The native engine on the CPU: our own kernels for OSNet; any batch, no compilation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from reid_edge.crops import resize_into
from reid_edge.errors import EngineUnavailableError
from reid_edge.manifest import Artifact
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.runtime.native.library import PORTABLE, LayerTimes, NativeNetwork, NativePrecision
from reid_edge.runtime.native.pictures import MOST_SIDE
from reid_edge.system.limits import usable_cpus
from reid_edge.tuning_record import Execution, FloatType
from reid_edge.types import Features, Image

_FLOATS: dict[FloatType, NativePrecision] = {"f32": "fp32", "bf16": "bf16"}


class NativeEngine:
    """Runs a plan.

    Args:
        files: The plan's content by its name.
        artifact: Description of the file.
        options: Options of the engines.

    Raises:
        BundleCorruptError: The plan is damaged.
        BundleVersionError: The plan has another format.
        EngineUnavailableError: The engine is not installed, or has no kernels for this CPU and precision.
        EngineError: No memory or threads.
    """

    batch_sizes: tuple[int, ...] | None = None

    def __init__(self, files: Mapping[str, bytes], artifact: Artifact, options: EngineOptions) -> None:
        if not options.on_cpu:
            raise EngineUnavailableError(f"the native engine runs on the CPU, not on {options.device}.")
        ((name, plan),) = files.items()
        execution = artifact.execution or Execution()
        threads = options.threads or execution.threads or usable_cpus()
        self._network = NativeNetwork(plan, name=name, precision=native_precision(artifact), threads=threads)
        self.description = f"native {self._network.info.kernels} CPU"

    def require_own_kernels(self) -> None:
        """Raise EngineUnavailableError where only the kernels for any processor run, which other engines may outrun."""
        if self._network.info.kernels == PORTABLE:
            raise EngineUnavailableError(
                "the native engine has no kernels for this CPU's instructions; to use it all the same: --engine native"
            )

    def infer_crops(self, crops: Sequence[Image]) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.CropEngine`."""
        return self._network.run_crops([self._resizable(crop) for crop in crops])

    def _resizable(self, crop: Image) -> Image:
        if max(crop.shape[:2]) <= MOST_SIDE:
            return crop
        resized = np.empty((*self._network.info.size, 3), np.uint8)
        resize_into(crop, resized)
        return resized

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        return self._network.run(batch)

    def time_layers(self, call: Callable[[], object]) -> LayerTimes:
        """See :class:`~reid_edge.runtime.engines.base.LayerTimer`."""
        return self._network.time_layers(call)


def native_precision(artifact: Artifact) -> NativePrecision:
    """Return the precision that the engine computes an artifact in.

    Raises:
        EngineUnavailableError: It has none such.
    """
    if artifact.precision == "int8" or artifact.int8:
        return "int8"
    float_type = (artifact.execution or Execution()).float_type
    if float_type not in _FLOATS or artifact.precision == "fp16":
        raise EngineUnavailableError(f"{artifact.name}: the native engine computes in fp32, bf16 and int8, not fp16.")
    return _FLOATS[float_type]
