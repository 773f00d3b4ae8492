"""ONNX Runtime on the CPU: computes the ONNX file as it is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from reid_edge.export.quantize import quantize_onnx
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.tune.engines.base import Quantization, TuningEngine
from reid_edge.tune.search import Probe, probes
from reid_edge.tuning_record import FloatType


class OnnxRuntimeTuning(TuningEngine):
    """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""

    name = file_engine = "onnxruntime"
    files = {"model.tuned.onnx": ".onnx"}  # noqa: RUF012 - read only
    formats = ("onnx",)
    absorbing = 1

    def probes(self, config: OSNetConfig, _float_type: FloatType) -> list[Probe]:
        """In float; the plain INT8 export takes part in the end all the same."""
        return probes(config, int8=False)

    def write(self, source: Path, out: Path, int8: Quantization | None) -> None:
        """See :class:`~reid_edge.tune.engines.base.TuningEngine`."""
        write_onnx(source, out, int8)


def write_onnx(source: Path, out: Path, int8: Quantization | None) -> None:
    """Make an ONNX file of a float one, for whatever runs ONNX: see :meth:`TuningEngine.write`."""
    if int8 is None:
        shutil.copyfile(source, out)
    else:
        quantize_onnx(source, out, int8.batches, needs_vnni=False, keep_float=int8.keep_float)
