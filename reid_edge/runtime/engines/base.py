"""Interface of the engines, and the options that they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from reid_edge.errors import EngineError, UsageError
from reid_edge.runtime.native.library import LayerTimes
from reid_edge.tuning_record import MAX_THREADS
from reid_edge.types import Features, Image, device_name

#: uint8 N×H×W×3 or float32 N×3×H×W, as the bundle's input spec says.
Batch = npt.NDArray[Any]
#: Batch that TensorRT makes the fastest, where nobody says which.
USUAL_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options for running an engine.

    Attributes:
        threads: CPU threads; None leaves the choice to the engine, within affinity and CPU quota.
        device: ``CPU``, where TensorRT runs on the GPU all the same; a device of OpenVINO: ``GPU``, ``GPU.1``, ``NPU``,
            ``AUTO``; or a provider of ONNX Runtime: ``CUDA``, ``TENSORRT``, ``OPENVINO``, ``DML`` and so on.  In any
            case.
        cache_dir: Folder for compiled models between starts; None keeps none.  Where nothing can be kept, or what is
            there is damaged, models are compiled again.
        as_written: ONNX Runtime runs the nodes of a file as they are, without its own rewrites: for files that another
            library will run.

    Raises:
        UsageError: Threads out of range.
    """

    threads: int | None = None
    device: str = "CPU"
    cache_dir: Path | None = None
    as_written: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads not in range(1, MAX_THREADS + 1):
            raise UsageError(f"threads must be from 1 to {MAX_THREADS}, got {self.threads!r}.")
        object.__setattr__(self, "device", device_name(self.device))

    @property
    def on_cpu(self) -> bool:
        """Return True where no other device than the CPU was asked for."""
        return self.device == "CPU"


def out_of_memory(what: str) -> EngineError:
    """Return the error for a MemoryError: of Python itself or NumPy, as under a limit of the address space."""
    return EngineError(
        f"no memory for {what}. Raise the limit if one is set (ulimit -v), or use fewer threads, a smaller max_batch "
        "or fewer crops at a time."
    )


class Engine(Protocol):
    """One model file, loaded.

    Attributes:
        description: Library, version and device.
    """

    description: str

    @property
    def batch_sizes(self) -> tuple[int, ...] | None:
        """Return the batch sizes that it runs, ascending; None means any up to the file's largest."""
        ...

    def infer(self, batch: Batch) -> Features:
        """Compute features of a batch of an allowed size.

        Args:
            batch: B inputs as the bundle's input spec describes them.

        Returns:
            B×D float32, not normalised; a fresh array.
        """
        ...


@runtime_checkable
class CropEngine(Engine, Protocol):
    """An engine that resizes crops by itself, for files that take pixels."""

    def infer_crops(self, crops: Sequence[Image]) -> Features:
        """Compute features of crops, each resized by the rule ``box-bilinear`` (:func:`reid_edge.crops.resize_into`).

        Args:
            crops: B pictures, h×w×3 uint8 BGR, B an allowed batch size; views of a frame are not copied.

        Returns:
            B×D float32, not normalised; a fresh array.
        """
        ...


@runtime_checkable
class LayerTimer(Engine, Protocol):
    """An engine that can tell where its time goes."""

    def time_layers(self, call: Callable[[], object]) -> LayerTimes:
        """Time the layers of all that this engine computes within a call.

        Returns:
            What the time went to, averaged over the threads.
        """
        ...
