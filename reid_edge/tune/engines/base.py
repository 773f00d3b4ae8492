"""What tuning has to know of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reid_edge.bundle import Bundle, EngineName, Precision
from reid_edge.export.exporter import Format, tool_versions
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.engines import Batch
from reid_edge.system.limits import usable_cpus
from reid_edge.tune.search import Probe
from reid_edge.tuning_record import DeviceClass, FloatType


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a form gets its INT8.

    Attributes:
        batches: Calibration inputs, one crop each.
        keep_float: Regular expressions of the nodes to leave in float.
        draft: Only to be timed: what makes it accurate and takes time may be left out.
    """

    batches: list[Batch]
    keep_float: tuple[str, ...]
    draft: bool


class TuningEngine(ABC):
    """Which candidates an engine can have, and how their files are made; what is not overridden holds on a CPU.

    Attributes:
        name: What runs the candidates.
        file_engine: What runs the files that :meth:`write` makes: ``name``, unless it only builds from them.
        files: Path in a bundle, and suffix, of every file that :meth:`write` makes; the first is the one to load.
        formats: Of the plain export.
        plain: Its files that the candidates have to beat.
        profiled: Whether the engine tells each layer's time, so that forms can be put together block by block.
        absorbing: So many of the forms, the first ones, are also tried with the mean absorbed.
        drafts: Whether INT8 that is only timed is quicker to make than INT8 that is accurate.
        half_weights: Whether ``f16`` is written into the ONNX file, and not left to the engine.

    Args:
        crops: Of a query.

    Raises:
        EngineUnavailableError: Its files cannot be made here.
    """

    name: ClassVar[EngineName]
    file_engine: ClassVar[EngineName]
    files: ClassVar[Mapping[str, str]]
    formats: ClassVar[tuple[Format, ...]]
    plain: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")
    profiled: ClassVar[bool] = False
    absorbing: ClassVar[int] = 0
    drafts: ClassVar[bool] = True
    half_weights: ClassVar[bool] = False

    def __init__(self, crops: int) -> None:
        self.crops = crops

    @abstractmethod
    def probes(self, config: OSNetConfig, float_type: FloatType) -> list[Probe]:
        """Uniform forms worth trying, plain ones first."""

    @abstractmethod
    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Make a form's file.

        Args:
            source: Float ONNX of its rewrite.
            out: The first of :attr:`files`; others go beside it, with their suffixes.
            int8: None: all in float.
        """

    def complete(self, bundle: Bundle) -> Bundle:
        """Add what the engine runs to a bundle of what :meth:`write` made; what is to be timed is listed first.

        Args:
            bundle: Where ``file_engine`` is another, its file has been checked.

        Raises:
            EngineError: It cannot be made.
            ParityError: It does not compute what its source computes.
        """
        return bundle

    def why_untimed(self) -> str:
        """Why files can be made here and not timed; "" where they can."""
        return ""

    def device(self) -> DeviceClass:
        """What decides whether a choice made here holds elsewhere."""
        return current_device_class()

    def tools(self) -> dict[str, str]:
        """Versions of what takes part."""
        return tool_versions()

    def float_types(self) -> tuple[FloatType, ...]:
        """What layers that are not INT8 may be computed in, the most promising first."""
        return ("f32",)

    def stream_counts(self) -> tuple[int, ...]:
        """Into how many parts a query may be split, each computed by its share of the cores."""
        return (1,)

    def thread_counts(self) -> tuple[int, ...]:
        """Numbers of threads worth trying in the end; none where threads play no part."""
        cpus = usable_cpus()
        return tuple(sorted({1, cpus // 2, cpus} - {0}))
