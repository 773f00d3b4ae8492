"""Engines that can be tuned for: what each can vary, and how its files are made."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import onnx

from reid_edge.bundle import Bundle
from reid_edge.errors import EngineError, EngineUnavailableError, MissingExtraError
from reid_edge.export.conversion import quantize_onnx, quantize_openvino, write_ir
from reid_edge.export.exporter import Format, tool_versions
from reid_edge.export.native import int8_plan_of_onnx, native_precisions, plan_of_onnx, why_no_plan
from reid_edge.export.onnx import OPSET
from reid_edge.export.tensorrt import build_tensorrt, plan_precisions, why_not_here
from reid_edge.files import write_whole
from reid_edge.manifest import EngineName, Precision
from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.runtime.cuda import find_gpu
from reid_edge.runtime.engines import Batch
from reid_edge.runtime.engines.hardware import device_class_of
from reid_edge.runtime.engines.onnxruntime import open_session
from reid_edge.runtime.engines.openvino import HALF_FLAGS, require_device
from reid_edge.runtime.native.library import available_kernels
from reid_edge.runtime.tensorrt_library import load_library
from reid_edge.system.cpu import cpu_flags
from reid_edge.tuning_record import DeviceClass, FloatType
from reid_edge.types import device_name

#: CPU flags that make a float type worth trying with OpenVINO; whether it works shows when it is tried.
_CPU_FLAGS: dict[FloatType, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "f16": HALF_FLAGS,
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
    """Describes what an engine can vary on a device, and makes its files.

    What a subclass does not override holds on a CPU.

    Attributes:
        name: What runs the candidates.
        file_engine: What runs the files that :meth:`write` makes: ``name``, unless it only builds from them.
        files: Path in a bundle, and suffix, of every file that :meth:`write` makes; the first is the one to load.
        formats: Of the plain export.
        plain: Precisions of the plain export that the candidates have to beat.
        int8_float_types: Float types of the rest of a network in INT8, the plain export's first; none: INT8 takes part
            as plain export only.
        drafts: Whether INT8 that is only timed is quicker to make than INT8 that is accurate.
        rewrites: Whether it runs rewritten networks.
        half_weights: Whether ``f16`` is written into the ONNX file, and not left to the engine.

    Args:
        crops: Of a query.
        device: What computes: ``CPU``, or what :meth:`require_device` takes.

    Raises:
        EngineUnavailableError: Its files cannot be made here, or it has no such device.
        MissingExtraError: Its package is not installed.
    """

    name: ClassVar[EngineName]
    file_engine: ClassVar[EngineName]
    files: ClassVar[Mapping[str, str]]
    formats: ClassVar[tuple[Format, ...]]
    plain: tuple[Precision, ...] = ("fp32", "int8")
    int8_float_types: tuple[FloatType, ...] = ()
    drafts: ClassVar[bool] = False
    half_weights: bool = False
    rewrites: ClassVar[bool] = True

    def __init__(self, crops: int, device: str = "CPU") -> None:
        self.crops, self.device = crops, device
        if device != "CPU":
            self.require_device()

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

    def why_not(self, info: CheckpointInfo) -> str:  # noqa: ARG002 - for subclasses
        """Say why its files cannot hold such a network; "" where they can."""
        return ""

    def why_untimed(self) -> str:
        """Say why files can be made here and not timed; "" where they can."""
        return ""

    def require_device(self) -> None:
        """Raise EngineUnavailableError where the engine does not compute on :attr:`device`, which is not the CPU."""
        raise EngineUnavailableError(f"{self.name} has no device '{self.device}': leave out --device, or --engine.")

    def device_class(self) -> DeviceClass:
        """Describe what decides whether a choice made here holds elsewhere."""
        return device_class_of(self.name, self.device)

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
        if self.device != "CPU":
            return ()
        cpus = self.device_class().cpus
        return tuple(sorted({1, cpus // 2, cpus} - {0}))


class OpenVINOTuning(TuningEngine):
    """OpenVINO, which converts floats as it compiles.

    On another device than the CPU both types that those compute in are tried; what a device lacks fails there.
    """

    name = file_engine = "openvino"
    files = {"openvino/tuned.xml": ".xml", "openvino/tuned.bin": ".bin"}  # noqa: RUF012 - read only
    formats = ("openvino",)
    int8_float_types: tuple[FloatType, ...] = ("f32", "bf16", "f16")
    drafts = True

    def __init__(self, crops: int, device: str = "CPU") -> None:
        super().__init__(crops, device)
        if device != "CPU":
            self.plain = ("fp32", "fp16", "int8")
            self.int8_float_types = self.float_types()

    def require_device(self) -> None:
        """See :meth:`TuningEngine.require_device`."""
        require_device(self.device, "tuning")

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write an IR; see :meth:`TuningEngine.write`."""
        if int8 is None:
            write_ir(source, out)
        else:
            quantize_openvino(source, out, int8.batches, needs_vnni=False, draft=int8.draft)

    def float_types(self) -> tuple[FloatType, ...]:
        """Float types that the CPU has instructions for; other devices have float16, which is faster there."""
        if self.device != "CPU":
            return ("f16", "f32")
        if self.device_class().isa_limit:
            return ("f32",)
        return ("f32", *(name for name, flags in _CPU_FLAGS.items() if cpu_flags().intersection(flags)))

    def stream_counts(self) -> tuple[int, ...]:
        """One, two, and as many as there are CPUs, where they divide a query evenly; one on other devices."""
        if self.device != "CPU":
            return (1,)
        cpus = self.device_class().cpus
        return tuple(sorted(count for count in {1, 2, cpus} if count <= cpus and self.crops % count == 0))


class OnnxRuntimeTuning(TuningEngine):
    """ONNX Runtime, which computes the ONNX file as it is written: on other devices than the CPU in float16 too."""

    name = file_engine = "onnxruntime"
    files = {"model.tuned.onnx": ".onnx"}  # noqa: RUF012 - read only
    formats = ("onnx",)

    def __init__(self, crops: int, device: str = "CPU") -> None:
        super().__init__(crops, device)
        if device != "CPU":
            self.half_weights = True
            self.plain = ("fp32", "fp16", "int8")

    def require_device(self) -> None:
        """See :meth:`TuningEngine.require_device`; a provider whose libraries do not load is found at once."""
        open_session(_smallest_model(), "tuning", device=self.device)

    def float_types(self) -> tuple[FloatType, ...]:
        """Float types that files are written in."""
        return ("f32",) if self.device == "CPU" else ("f16", "f32")

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write an ONNX file; see :meth:`TuningEngine.write`."""
        _write_onnx(source, out, int8)


class NativeTuning(TuningEngine):
    """Our own kernels on the CPU, which compute the plain network."""

    name = file_engine = "native"
    files = {"native/tuned.plan": ".plan"}  # noqa: RUF012 - read only
    formats = ("native",)
    rewrites = False

    def __init__(self, crops: int, device: str = "CPU") -> None:
        super().__init__(crops, device)
        self.plain = native_precisions()
        if not self.plain:
            available_kernels("fp32")  # says why
        self.int8_float_types = ("f32",) if "int8" in self.plain else ()

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """Write a plan; see :meth:`TuningEngine.write`."""
        write_whole(out, plan_of_onnx(source) if int8 is None else int8_plan_of_onnx(source, int8.batches))

    def why_not(self, info: CheckpointInfo) -> str:
        """Say so of networks that no plan can be made of."""
        return str(why_no_plan(info, "pixels") or "")

    def float_types(self) -> tuple[FloatType, ...]:
        """Float types that there are kernels for."""
        return ("f32", "bf16") if available_kernels("bf16") else ("f32",)


class TensorRTTuning(TuningEngine):
    """TensorRT: a plan is built from an ONNX file, which says the precision of every layer.

    Plans are built on the device that runs them. Without a GPU ``tensorrt_rtx`` builds too, and nothing can be timed.
    ``tensorrt_rtx`` has no INT8.
    """

    name = "tensorrt"
    file_engine = "onnxruntime"
    files = {"model.tuned.onnx": ".onnx"}  # noqa: RUF012 - read only
    formats = ("onnx", "tensorrt")
    int8_float_types: tuple[FloatType, ...] = ("f16", "f32")
    half_weights = True

    def __init__(self, crops: int, device: str = "CPU") -> None:
        super().__init__(crops, device)
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


def _smallest_model() -> bytes:
    """Make an ONNX model that any ONNX Runtime reads: its output is its input."""
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT, shape=[1])
    node = onnx.helper.make_node("Identity", ["input"], ["output"])
    graph = onnx.helper.make_graph([node], "smallest", [value("input")], [value("output")])
    opset = onnx.helper.make_opsetid("", OPSET)
    model: bytes = onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString()
    return model


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


#: Engines that ``cpu`` stands for; on another device, those of them that have it.
_CPU_ENGINES: tuple[EngineName, ...] = ("native", "openvino", "onnxruntime")


def tuning_engines(name: EngineName | Literal["cpu"], crops: int, device: str = "CPU") -> list[TuningEngine]:
    """Find the engines that take part in a tuning.

    Args:
        name: One of them, or ``cpu``: all that run on the CPU, or on ``device``, against each other.
        crops: Of a query.
        device: ``CPU``, a device of OpenVINO or a provider of ONNX Runtime.

    Raises:
        EngineUnavailableError: Files cannot be made here, or no engine has that device.
        MissingExtraError: The package of the one that was named is not installed.
    """
    device = device_name(device)
    if name != "cpu":
        return [_ENGINES[name](crops, device)]
    engines, reasons = [], []
    for one in _CPU_ENGINES:
        try:
            engines.append(_ENGINES[one](crops, device))
        except (EngineError, MissingExtraError) as error:  # the native engine is not built everywhere
            reasons.append(f"  {one}: {error}")
    if not engines:
        raise EngineUnavailableError(f"no engine here can be tuned on {device}:\n" + "\n".join(reasons))
    return engines
