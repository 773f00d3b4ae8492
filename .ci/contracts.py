"""Compare what reid-edge calls of CUDA and TensorRT with NVIDIA's own Python modules, without a GPU.

    python .ci/contracts.py

The modules of TensorRT are wheels of 1 MB.  They load over libraries of the right names that hold empty functions.
CUDA's functions are declared in the wheels of cuda-bindings.  reid-edge must be importable.
"""

import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

TENSORRT = ("10.3.0", "10.16.1.11", "11.4.0.106")
RTX = ("1.7.1.116",)
CUDA = ("12.8.0", "13.4.4")
#: Libraries that the modules are linked to.
NAMES, RTX_NAMES = ("nvinfer", "nvonnxparser", "nvinfer_plugin"), ("tensorrt_rtx", "tensorrt_onnxparser_rtx")
#: Functions that the modules want from TensorRT's libraries.
STUBS = """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL createNvOnnxParserRefitter_INTERNAL
createNvOnnxParser_INTERNAL getBuilderPluginRegistry getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins
"""
CHECK = r"""
members = {
    "Builder": "create_network create_optimization_profile create_builder_config build_serialized_network",
    "INetworkDefinition": "get_input num_layers",
    "IOptimizationProfile": "set_shape",
    "IBuilderConfig": "add_optimization_profile profiling_verbosity create_timing_cache set_timing_cache "
    "get_timing_cache clear_flag",
    "BuilderFlag": "TF32",
    "ITimingCache": "serialize",
    "OnnxParser": "parse get_error num_errors",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "get_tensor_name get_tensor_mode get_tensor_shape get_tensor_dtype num_io_tensors "
    "create_execution_context create_engine_inspector device_memory_size_v2 num_optimization_profiles "
    "get_tensor_profile_shape",
    "EngineInspector": "get_engine_information execution_context",
    "IExecutionContext": "set_input_shape set_tensor_address set_device_memory execute_async_v3 "
    "set_optimization_profile_async",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "ProfilingVerbosity": "DETAILED",
    "DataType": "UINT8 FLOAT",
    "TensorIOMode": "INPUT",
    "LayerInformationFormat": "JSON",
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
}
if hasattr(t, "CudaGraphStrategy"):  # TensorRT-RTX
    members |= {
        "CudaGraphStrategy": "WHOLE_GRAPH_CAPTURE",
        "DynamicShapesKernelSpecializationStrategy": "EAGER",
        "IRuntimeConfig": "set_execution_context_allocation_strategy cuda_graph_strategy create_runtime_cache "
        "dynamic_shapes_kernel_specialization_strategy set_runtime_cache",
        "IRuntimeCache": "serialize deserialize",
    }
    members["ICudaEngine"] += " create_runtime_config"
for owner, names in members.items():
    for name in names.split():
        assert hasattr(getattr(t, owner), name), f"TensorRT {t.__version__} has no {owner}.{name}"
signatures = {
    ("IExecutionContext", "set_device_memory"): r"memory: \S+, size: \S+\) -> None",
    ("IExecutionContext", "set_input_shape"): r"name: str, shape: tuple\) -> bool",
    ("IExecutionContext", "set_tensor_address"): r"name: str, memory: \S+\) -> bool",
    ("IExecutionContext", "execute_async_v3"): r"stream_handle: \S+\) -> bool",
    ("IExecutionContext", "set_optimization_profile_async"): r"profile_index: \S+, stream_handle: \S+\) -> bool",
    ("ICudaEngine", "get_tensor_profile_shape"): r"name: str, profile_index: \S+\) -> \w+\[",
    ("ICudaEngine", "create_execution_context"): r"strategy: \S*ExecutionContextAllocationStrategy",
    ("IBuilderConfig", "clear_flag"): r"flag: \S+\) -> None",
    ("IBuilderConfig", "set_timing_cache"): r"cache: \S+, ignore_mismatch: bool\) -> bool",
    ("IBuilderConfig", "create_timing_cache"): r"serialized_timing_cache: \S+\) -> \S*ITimingCache",
    ("OnnxParser", "parse"): r"model: \S+, path: str = None\) -> bool",
    ("IOptimizationProfile", "set_shape"): r"input: str, min: \S+, opt: \S+, max: \S+\)",
}
for (owner, name), wanted in signatures.items():
    import re
    words = getattr(getattr(t, owner), name).__doc__
    assert re.search(wanted, words), (owner, name, words)

class Log(t.ILogger):
    def __init__(self):
        t.ILogger.__init__(self)
        self.heard = []
    def log(self, severity, msg):
        self.heard.append((severity, msg))

log = Log()
log.log(t.ILogger.Severity.ERROR, "words")
assert log.heard == [(t.ILogger.ERROR, "words")]
assert {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"} == set(t.ILogger.Severity.__members__)
try:
    t.Runtime(log)
except TypeError as error:  # as where TensorRT cannot start: reid_edge.runtime.tensorrt_library.make relies on it
    assert "nullptr" in str(error), error
else:
    raise AssertionError("a null pointer became a runtime")
print(t.__name__, t.__version__, "has what reid-edge calls")
"""
#: How CUDA's declarations name what ctypes passes.
TYPES = {
    "unsigned int": ctypes.c_uint,
    "int": ctypes.c_int,
    "size_t": ctypes.c_size_t,
    "unsigned long long": ctypes.c_ulonglong,
    "CUdevice": ctypes.c_int,
    "CUdevice_attribute": ctypes.c_int,
    "CUresult": ctypes.c_int,
    "CUstreamCaptureMode": ctypes.c_int,
    "CUdeviceptr": ctypes.c_uint64,
    "char*": ctypes.c_char_p,
    "const char**": ctypes.POINTER(ctypes.c_char_p),
    "void*": ctypes.c_void_p,
    "const void*": ctypes.c_void_p,
    "void**": ctypes.POINTER(ctypes.c_void_p),
    "CUdeviceptr*": ctypes.POINTER(ctypes.c_uint64),
    "size_t*": ctypes.POINTER(ctypes.c_size_t),
    "int*": ctypes.POINTER(ctypes.c_int),
    "CUdevice*": ctypes.POINTER(ctypes.c_int),
    **dict.fromkeys(("CUcontext", "CUstream", "CUgraph", "CUgraphExec"), ctypes.c_void_p),
    **dict.fromkeys(("CUcontext*", "CUstream*", "CUgraph*", "CUgraphExec*"), ctypes.POINTER(ctypes.c_void_p)),
}
#: cuda.h gives these functions shorter names.
SHORT = re.compile(r"(_v2|WithFlags)$")


def fetch(requirement, folder):
    """Download one wheel; returns its path, or None where there is none for this Python."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder, requirement]
    done = subprocess.run(pip, capture_output=True, text=True)
    found = list(pathlib.Path(folder).glob("*.whl"))
    if not found:
        print(f"{requirement}: no wheel for Python {sys.version_info[0]}.{sys.version_info[1]} here: not run")
        print(done.stderr[-500:])
    return found[0] if found else None


def check_tensorrt(version):
    """Compare a release of the full library."""
    major = version.partition(".")[0]
    return check_module(f"tensorrt-cu12-bindings=={version}", "tensorrt_bindings", NAMES, major)


def check_rtx(version):
    """Compare a release of TensorRT-RTX."""
    return check_module(f"tensorrt-rtx-cu13-bindings=={version}", "tensorrt_rtx_bindings", RTX_NAMES, "1")


def check_module(requirement, module, names, major):
    """Load a module over empty libraries of these names, and look for everything that is called."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch(requirement, folder)
        if wheel is None:
            return False
        zipfile.ZipFile(wheel).extractall(folder)
        source = pathlib.Path(folder, "stubs.c")
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in STUBS.split()))
        for library in names:
            name = f"lib{library}.so.{major}"
            subprocess.run(
                ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", f"{folder}/{name}", source], check=True
            )
        environment = os.environ | {"LD_LIBRARY_PATH": folder, "PYTHONPATH": folder}
        subprocess.run([sys.executable, "-c", f"import {module} as t{CHECK}"], check=True, env=environment)
    return True


def check_cuda(version):
    """Compare the types of all functions of the driver that are called with their declarations."""
    from reid_edge.runtime.cuda import PROTOTYPES

    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch(f"cuda-bindings=={version}", folder)
        if wheel is None:
            return False
        declarations = zipfile.ZipFile(wheel).read("cuda/bindings/cydriver.pxd").decode()
    for name, types in PROTOTYPES.items():
        found = re.search(rf"^cdef CUresult {SHORT.sub('', name)}\((.*?)\) except", declarations, re.M)
        assert found, f"CUDA {version} has no {name}"
        declared = [TYPES[re.sub(r"\s*\w+$", "", one.strip())] for one in found[1].split(",")]
        assert declared == list(types), (name, found[1], types)
    print(f"CUDA {version} has the {len(PROTOTYPES)} functions that reid-edge calls, with the same types")
    return True


if not all([*map(check_tensorrt, TENSORRT), *map(check_rtx, RTX), *map(check_cuda, CUDA)]):
    sys.exit("not every release could be compared")
