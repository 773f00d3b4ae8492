"""Report of the engines and extras that work on this device, with advice on what to install.

Each line is found on its own: a package that is broken is reported, and the other lines stay.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from reid_edge.errors import EngineError, EngineUnavailableError, shortened

#: NumPy's own words, and those of modules that were built for another NumPy.
_OTHER_NUMPY = ("numpy.core.multiarray", "_ARRAY_API", "compiled using NumPy 1", "numpy.dtype size changed")
_OLDER_NUMPY = (
    "the system's package was built for NumPy 1: pip install 'numpy<2' in this environment (a Jetson with JetPack 6)"
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report: a subject, what was found, and advice ("" where nothing needs to be done)."""

    subject: str
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Examine this device: Python, CPU, GPU, engines, and the packages that each extra needs."""
    lines: list[tuple[str, Callable[[], Finding]]] = [
        ("CPU", _cpu),
        ("GPU (CUDA)", _gpu),
        ("NumPy", _numpy),
        ("OpenCV", _opencv),
        ("native engine", _native),
        ("OpenVINO", _openvino),
        ("ONNX Runtime", _onnxruntime),
        ("TensorRT", _tensorrt),
    ]
    return [
        Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_found(subject, line) for subject, line in lines),
        _package("export", "nncf", "export", companions=("torch", "openvino", "onnx", "onnxscript")),
        _package("Parquet", "pyarrow", "parquet"),
        _package("signed bundles", "cryptography", "signing"),
        _package("camera agent", "edgefirst-tracker", "camera", companions=("httpcore", "paho-mqtt", "protobuf")),
        _package("gallery server", "uvicorn", "gallery", companions=("starlette", "paho-mqtt", "protobuf")),
        _package("gallery in PostgreSQL", "psycopg", "postgresql", companions=("pgvector",)),
        _package("gallery in Milvus", "pymilvus", "milvus"),
    ]


def _found(subject: str, line: Callable[[], Finding]) -> Finding:
    """Return a line, or what kept it from being found."""
    try:
        return line()
    except Exception as error:  # a broken package may raise anything while it is loaded
        words = f"{type(error).__name__}: {error}"
        advice = _OLDER_NUMPY if any(sign in words for sign in _OTHER_NUMPY) else "install it again"
        return Finding(subject, f"broken: {shortened(words, 200)}", advice)


def _cpu() -> Finding:
    from reid_edge.system.cpu import cpu_name, instruction_sets, saturates_int8

    sets = ", ".join(instruction_sets()) or "no instruction sets reported"
    advice = "INT8 here needs bundles exported with --target-cpu any (the default)" if saturates_int8() else ""
    return Finding("CPU", f"{cpu_name()}: {sets}", advice)


def _gpu() -> Finding:
    from reid_edge.runtime.cuda import driver_version, open_gpu

    try:
        return Finding("GPU (CUDA)", f"{open_gpu()}, driver for CUDA {driver_version()}")
    except EngineUnavailableError as error:
        return Finding("GPU (CUDA)", "none found", str(error) if _has_nvidia() else "")
    except EngineError as error:
        return Finding("GPU (CUDA)", "fails", str(error))


def _has_nvidia() -> bool:
    """Return True where the system shows an NVIDIA GPU, with or without its driver."""
    from reid_edge.system.device import list_gpus
    from reid_edge.system.jetson import describe_jetson

    return bool(describe_jetson()) or any(not name.startswith("Intel") for name in list_gpus())


def _numpy() -> Finding:
    return Finding("NumPy", str(import_module("numpy").__version__))


def _opencv() -> Finding:
    cv2 = import_module("cv2")
    words = str(cv2.getBuildInformation()).partition("GStreamer:")[2].split()
    return Finding("OpenCV", f"{cv2.__version__}, {'with' if words[:1] == ['YES'] else 'without'} GStreamer")


def _native() -> Finding:
    from reid_edge.runtime.native.library import available_kernels

    try:
        kernels = {precision: available_kernels(precision) for precision in ("fp32", "bf16", "int8")}
    except EngineUnavailableError as error:
        return Finding("native engine", "not installed", str(error).partition(". ")[2])
    found = (f"{precision} by {names[0]}" for precision, names in kernels.items() if names)
    return Finding("native engine", ", ".join(found))


def _openvino() -> Finding:
    try:
        import_module("openvino")  # alone, since our engines load OpenCV, too
    except ModuleNotFoundError as error:
        if error.name == "openvino":
            return _missing("OpenVINO", "openvino")
        raise
    from reid_edge.runtime.engines.openvino import openvino_core, openvino_version

    devices = ", ".join(openvino_core("doctor").available_devices)
    return Finding("OpenVINO", f"{openvino_version()}, devices {devices}")


def _onnxruntime() -> Finding:
    try:
        library = import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            return _missing("ONNX Runtime", "onnx")
        raise
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in library.get_available_providers())
    packages = " and ".join(sorted(packages_distributions().get("onnxruntime", ["onnxruntime"])))
    return Finding("ONNX Runtime", f"{packages} {library.__version__}, providers {providers}")


def _tensorrt() -> Finding:
    from reid_edge.runtime.cuda import find_gpu
    from reid_edge.runtime.tensorrt_library import load_library, why_not_on

    try:
        library = load_library()
    except EngineUnavailableError as error:
        problem, _, advice = str(error).partition(". ")
        missing = problem.endswith("library is installed")
        return Finding("TensorRT", "not installed" if missing else "cannot be used", advice if missing else str(error))
    gpu = find_gpu()
    obstacle = "plans cannot run here: no GPU found" if gpu is None else why_not_on(library, gpu)
    return Finding("TensorRT", f"{library.__name__} {library.__version__}", obstacle)


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
