"""TensorRT: a plan is built from an ONNX file, which says the precision of every layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reid_edge.bundle import Bundle
from reid_edge.export.tensorrt import build_tensorrt, why_not_here
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.engines.tensorrt import find_gpu, load_library
from reid_edge.tune.engines.base import Quantization, TuningEngine
from reid_edge.tune.engines.onnxruntime import write_onnx
from reid_edge.tune.search import Probe, probes
from reid_edge.tuning_record import DeviceClass, FloatType


class TensorRTTuning(TuningEngine):
    """See :class:`~reid_edge.tune.engines.base.TuningEngine`.

    Plans are built on the device that runs them. Without a GPU ``tensorrt_rtx`` builds too, and nothing can be timed.
    """

    name = "tensorrt"
    file_engine = "onnxruntime"
    files = {"model.tuned.onnx": ".onnx"}  # noqa: RUF012 - read only
    formats = ("onnx", "tensorrt")
    plain = ("fp32", "fp16", "int8")
    drafts = False
    half_weights = True

    def __init__(self, crops: int) -> None:
        super().__init__(crops)
        if (obstacle := why_not_here()) is not None:
            raise obstacle

    def probes(self, config: OSNetConfig, float_type: FloatType) -> list[Probe]:
        """INT8 only where the rest is float32: NNCF quantizes no float16."""
        return probes(config, int8=float_type == "f32")

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        write_onnx(source, out, int8)

    def complete(self, bundle: Bundle) -> Bundle:
        """Build the plan; on a GPU it has to compute what its ONNX file computes on the CPU."""
        manifest = bundle.manifest
        plan = build_tensorrt(bundle.path, manifest, "tuned", usual_batch=self.crops)
        return Bundle(bundle.path, replace(manifest, artifacts=(plan, *manifest.artifacts)))

    def why_untimed(self) -> str:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        if find_gpu() is not None:
            return ""
        return (
            "CUDA finds no GPU here, so that nothing was timed and nothing written. Run the same command on the "
            "device that will run the bundle: reid-edge tune --engine tensorrt …"
        )

    def device(self) -> DeviceClass:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        gpu = find_gpu()
        return current_device_class(gpu.name if gpu else "")

    def tools(self) -> dict[str, str]:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        library = load_library()
        return {**super().tools(), library.__name__: library.__version__}

    def float_types(self) -> tuple[FloatType, ...]:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        return ("f16", "f32")

    def thread_counts(self) -> tuple[int, ...]:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        return ()
