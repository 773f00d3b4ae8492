"""OpenVINO on the CPU: it tells each layer's time, and converts floats as it compiles."""

from __future__ import annotations

from pathlib import Path

import openvino

from reid_edge.export.ir import save_ir
from reid_edge.export.quantize import quantize_openvino
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.system.cpu import cpu_flags, isa_limit
from reid_edge.system.limits import usable_cpus
from reid_edge.tune.engines.base import Quantization, TuningEngine
from reid_edge.tune.search import Probe, probes
from reid_edge.tuning_record import FloatType

#: CPU flag that makes a float type worth trying; whether the engine can use it shows when it is tried.
_FLAGS: dict[FloatType, tuple[str, ...]] = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "f16": ("amx_fp16", "fphp")}


class OpenVINOTuning(TuningEngine):
    """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""

    name = file_engine = "openvino"
    files = {"openvino/tuned.xml": ".xml", "openvino/tuned.bin": ".bin"}  # noqa: RUF012 - read only
    formats = ("onnx", "openvino")
    profiled = True
    absorbing = 2

    def probes(self, config: OSNetConfig, _float_type: FloatType) -> list[Probe]:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        return probes(config, int8=True)

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        if int8 is None:
            save_ir(openvino.convert_model(source), out)
        else:
            quantize_openvino(source, out, int8.batches, needs_vnni=False, keep_float=int8.keep_float, draft=int8.draft)

    def float_types(self) -> tuple[FloatType, ...]:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        if isa_limit():
            return ("f32",)
        return ("f32", *(name for name, flags in _FLAGS.items() if cpu_flags().intersection(flags)))

    def stream_counts(self) -> tuple[int, ...]:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        cpus = usable_cpus()
        return tuple(sorted(count for count in {1, 2, cpus} if count <= cpus and self.crops % count == 0))
