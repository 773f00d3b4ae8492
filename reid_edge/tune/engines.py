"""Engines that can be tuned for: what each can vary, and how its files are made."""

from __future__ import annotations

import contextlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from reid_edge.bundle import Bundle
from reid_edge.errors import EngineUnavailableError
from reid_edge.export.conversion import quantize_onnx, quantize_openvino, write_ir
from reid_edge.export.exporter import Format, tool_versions
from reid_edge.export.native import int8_plan_of_onnx, native_precisions, plan_of_onnx, why_no_plan
from reid_edge.export.tensorrt import build_tensorrt, plan_precisions, why_not_here
from reid_edge.files import write_whole
from reid_edge.manifest import EngineName, Precision
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.runtime.cuda import find_gpu
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.engines import Batch
from reid_edge.runtime.native.library import available_kernels
from reid_edge.runtime.tensorrt_library import load_library
from reid_edge.system.cpu import cpu_flags
from reid_edge.tuning_record import DeviceClass, FloatType

#: CPU flags that make a float type worth trying with OpenVINO; whether it works shows when it is tried.
_CPU_FLAGS: dict[FloatType, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "f16": ("amx_fp16", "fphp"),
}


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Inputs and effort of a quantization to INT8.

    Attributes:
        batches: Calibration inputs, one crop each.
        draft: Only to be timed: what makes it accurate and takes time may be left out.
    """

    batches: list[Batch]
    draft: bool


class TuningEngine(ABC):
    """Describes what an engine can vary, and makes its files; what a subclass does not override holds on a CPU.

    Attributes:
        name: What runs the candidates.
        file_engine: What runs the files that :meth:`write` makes: ``name``, unless it only builds from them.
        files: Path in a bundle, and suffix, of every file that :meth:`write` makes; the first is the one to load.
        formats: Of the plain export.
        plain: Precisions of the plain export that the candidates have to beat.
        int8_float_types: Float types of the rest of a network in INT8; none: INT8 takes part as plain export only.
        drafts: Whether INT8 that is only timed is quicker to make than INT8 that is accurate.
        rewrites: Whether it runs rewritten networks.
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
    plain: tuple[Precision, ...] = ("fp32", "int8")
    int8_float_types: tuple[FloatType, ...] = ()
    drafts: ClassVar[bool] = False
    half_weights: ClassVar[bool] = False
    rewrites: ClassVar[bool] = True

    def __init__(self, crops: int) -> None:
        self.crops = crops

    @abstractmethod
    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Make a candidate's file.

        Args:
            source: ONNX of its rewrite, in float.
            out: The first of :attr:`files`; others go beside it, with their suffixes.
            int8: None: all in float.
        """

    def complete(self, bundle: Bundle) -> Bundle:
        """Add what the engine runs to a bundle of what :meth:`write` made; what is to be timed is listed first.

        Args:
            bundle: Where ``file_engine`` is another engine, its file has been checked.

        Raises:
            EngineError: It cannot be made.
            ParityError: It does not compute what its source computes.
        """
        return bundle

    def takes(self, variant: NetworkVariant) -> bool:  # noqa: ARG002 - for subclasses
        """Say whether its files can hold such a network."""
        return True

    def why_untimed(self) -> str:
        """Say why files can be made here and not timed; "" where they can."""
        return ""

    def device(self) -> DeviceClass:
        """Describe what decides whether a choice made here holds elsewhere."""
        return current_device_class()

    def tools(self) -> dict[str, str]:
        """Versions of what takes part."""
        return tool_versions()

    def float_types(self) -> tuple[FloatType, ...]:
        """Float types that layers outside INT8 may be computed in."""
        return ("f32",)

    def stream_counts(self) -> tuple[int, ...]:
        """Numbers of parts that a query may be split into, each computed by its share of the cores."""
        return (1,)

    def thread_counts(self) -> tuple[int, ...]:
        """Numbers of threads worth trying in the end; none where threads play no part."""
        cpus = self.device().cpus
        return tuple(sorted({1, cpus // 2, cpus} - {0}))


class OpenVINOTuning(TuningEngine):
    """OpenVINO on the CPU, which converts floats as it compiles."""

    name = file_engine = "openvino"
    files = {"openvino/tuned.xml": ".xml", "openvino/tuned.bin": ".bin"}  # noqa: RUF012 - read only
    formats = ("openvino",)
    int8_float_types = ("f32", "bf16", "f16")
    drafts = True

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write an IR; see :meth:`TuningEngine.write`."""
        if int8 is None:
            write_ir(source, out)
        else:
            quantize_openvino(source, out, int8.batches, needs_vnni=False, draft=int8.draft)

    def float_types(self) -> tuple[FloatType, ...]:
        """Float types that the CPU has instructions for."""
        if self.device().isa_limit:
            return ("f32",)
        return ("f32", *(name for name, flags in _CPU_FLAGS.items() if cpu_flags().intersection(flags)))

    def stream_counts(self) -> tuple[int, ...]:
        """One, two, and as many as there are CPUs, where they divide a query evenly."""
        cpus = self.device().cpus
        return tuple(sorted(count for count in {1, 2, cpus} if count <= cpus and self.crops % count == 0))


class OnnxRuntimeTuning(TuningEngine):
    """ONNX Runtime on the CPU, which computes the ONNX file as it is written."""

    name = file_engine = "onnxruntime"
    files = {"model.tuned.onnx": ".onnx"}  # noqa: RUF012 - read only
    formats = ("onnx",)

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write an ONNX file; see :meth:`TuningEngine.write`."""
        _write_onnx(source, out, int8)


class NativeTuning(TuningEngine):
    """Our own kernels on the CPU, which compute the plain network."""

    name = file_engine = "native"
    files = {"native/tuned.plan": ".plan"}  # noqa: RUF012 - read only
    formats = ("native",)
    rewrites = False

    def __init__(self, crops: int) -> None:
        super().__init__(crops)
        self.plain = native_precisions()
        if not self.plain:
            available_kernels("fp32")  # says why
        self.int8_float_types = ("f32",) if "int8" in self.plain else ()

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write a plan; see :meth:`TuningEngine.write`."""
        write_whole(out, plan_of_onnx(source) if int8 is None else int8_plan_of_onnx(source, int8.batches))

    def takes(self, variant: NetworkVariant) -> bool:
        """Say so of networks of Lite 3x3 layers."""
        return why_no_plan(variant, "pixels") is None

    def float_types(self) -> tuple[FloatType, ...]:
        """Float types that there are kernels for."""
        return ("f32", "bf16") if available_kernels("bf16") else ("f32",)


class TensorRTTuning(TuningEngine):
    """TensorRT: a plan is built from an ONNX file, which says the precision of every layer.

    Plans are built on the device that runs them. Without a GPU ``tensorrt_rtx`` builds too, and nothing can be timed.
    INT8 leaves the rest in float32, since NNCF quantizes no float16; ``tensorrt_rtx`` has none.
    """

    name = "tensorrt"
    file_engine = "onnxruntime"
    files = {"model.tuned.onnx": ".onnx"}  # noqa: RUF012 - read only
    formats = ("onnx", "tensorrt")
    int8_float_types: tuple[FloatType, ...] = ("f32",)
    half_weights = True

    def __init__(self, crops: int) -> None:
        super().__init__(crops)
        if (obstacle := why_not_here()) is not None:
            raise obstacle
        self.plain = plan_precisions()
        if "int8" not in self.plain:
            self.int8_float_types = ()

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write the ONNX file that the plan is built from; see :meth:`TuningEngine.write`."""
        _write_onnx(source, out, int8)

    def complete(self, bundle: Bundle) -> Bundle:
        """Build the plan; on a GPU it has to compute what its ONNX file computes on the CPU."""
        manifest = bundle.manifest
        plan = build_tensorrt(bundle, "tuned", usual_batch=self.crops)
        return Bundle(bundle.path, replace(manifest, artifacts=(plan, *manifest.artifacts)))

    def why_untimed(self) -> str:
        """Say so where CUDA finds no GPU."""
        if find_gpu() is not None:
            return ""
        return (
            "CUDA finds no GPU here, so that nothing was timed and nothing written. Run the same command on the "
            "device that will run the bundle: reid-edge tune --engine tensorrt …"
        )

    def device(self) -> DeviceClass:
        """Name the GPU besides what holds on any device."""
        gpu = find_gpu()
        return current_device_class(gpu.model if gpu else "")

    def tools(self) -> dict[str, str]:
        """Versions of what takes part, TensorRT's among them."""
        library = load_library()
        return {**super().tools(), library.__name__: library.__version__}

    def float_types(self) -> tuple[FloatType, ...]:
        """Both that plans are built in, the one that is usually faster first."""
        return ("f16", "f32")

    def thread_counts(self) -> tuple[int, ...]:
        """None: a GPU computes."""
        return ()


def _write_onnx(source: Path, out: Path, int8: Quantization | None) -> None:
    if int8 is None:
        shutil.copyfile(source, out)
    else:
        quantize_onnx(source, out, int8.batches, needs_vnni=False)


_ENGINES: dict[EngineName, type[TuningEngine]] = {
    "native": NativeTuning,
    "openvino": OpenVINOTuning,
    "onnxruntime": OnnxRuntimeTuning,
    "tensorrt": TensorRTTuning,
}


#: Engines that ``cpu`` stands for.
_CPU_ENGINES: tuple[EngineName, ...] = ("native", "openvino", "onnxruntime")


def tuning_engines(name: EngineName | Literal["cpu"], crops: int) -> list[TuningEngine]:
    """Find the engines that take part in a tuning.

    Args:
        name: One of them, or ``cpu``: all that run on the CPU, against each other.
        crops: Of a query.

    Raises:
        EngineUnavailableError: Files cannot be made here.
    """
    if name != "cpu":
        return [_ENGINES[name](crops)]
    engines = []
    for one in _CPU_ENGINES:
        with contextlib.suppress(EngineUnavailableError):  # the native engine is not built everywhere
            engines.append(_ENGINES[one](crops))
    return engines
