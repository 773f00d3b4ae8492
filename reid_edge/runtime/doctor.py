"""Report of the engines and extras that work on this device, with advice on what to install."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from reid_edge.errors import EngineUnavailableError, MissingExtraError
from reid_edge.runtime.engines.openvino import openvino_core, openvino_version
from reid_edge.runtime.engines.tensorrt import find_gpu, load_library
from reid_edge.runtime.native.library import available_kernels
from reid_edge.system.cpu import cpu_name, instruction_sets, saturates_int8


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report: a subject, what was found, and advice ("" where nothing needs to be done)."""

    subject: str
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Examine this device: Python, CPU, GPU, engines, and the packages that each extra needs."""
    return [
        Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        _cpu(),
        _gpu(),
        _native(),
        _openvino(),
        _package("ONNX Runtime", "onnxruntime", "onnx"),
        _tensorrt(),
        _package("export", "nncf", "export", companions=("torch", "openvino", "onnx", "onnxscript")),
        _package("Parquet", "pyarrow", "parquet"),
        _package("signed bundles", "cryptography", "signing"),
        _package("camera agent", "edgefirst-tracker", "camera", companions=("httpcore", "paho-mqtt", "protobuf")),
        _package("gallery server", "uvicorn", "gallery", companions=("starlette", "paho-mqtt", "protobuf")),
        _package("gallery in PostgreSQL", "psycopg", "postgresql", companions=("pgvector",)),
        _package("gallery in Milvus", "pymilvus", "milvus"),
    ]


def _cpu() -> Finding:
    sets = ", ".join(instruction_sets()) or "no instruction sets reported"
    advice = "INT8 here needs bundles exported with --target-cpu any (the default)" if saturates_int8() else ""
    return Finding("CPU", f"{cpu_name()}: {sets}", advice)


def _gpu() -> Finding:
    gpu = find_gpu()
    if gpu is None:
        return Finding("GPU (CUDA)", "none found")
    return Finding("GPU (CUDA)", f"{gpu.name}, compute capability {gpu.compute_capability}")


def _native() -> Finding:
    try:
        kernels = {precision: available_kernels(precision) for precision in ("fp32", "bf16", "int8")}
    except EngineUnavailableError as error:
        return Finding("native engine", "not installed", str(error).partition(". ")[2])
    found = (f"{precision} by {names[0]}" for precision, names in kernels.items() if names)
    return Finding("native engine", ", ".join(found))


def _openvino() -> Finding:
    try:
        devices = ", ".join(openvino_core("doctor").available_devices)
    except MissingExtraError:
        return _missing("OpenVINO", "openvino")
    return Finding("OpenVINO", f"{openvino_version()}, devices {devices}")


def _tensorrt() -> Finding:
    try:
        library = load_library()
    except EngineUnavailableError as error:
        return Finding("TensorRT", "not installed", str(error).partition(". ")[2])
    if find_gpu() is None:
        return Finding("TensorRT", f"{library.__name__} {library.__version__}", "plans cannot run here: no GPU found")
    return Finding("TensorRT", f"{library.__name__} {library.__version__}")


def _package(subject: str, package: str, extra: str, *, companions: tuple[str, ...] = ()) -> Finding:
    found, missing = [], []
    for name in (package, *companions):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(subject, f"missing {', '.join(missing)}", f"pip install 'reid-edge[{extra}]'")
    return Finding(subject, ", ".join(found))


def _missing(subject: str, extra: str) -> Finding:
    return Finding(subject, "not installed", f"pip install 'reid-edge[{extra}]'")
