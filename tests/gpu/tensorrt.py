"""TensorRT, or TensorRT-RTX, whose plan is an ONNX file: ONNX Runtime computes in the turn of the fake stream.

It refuses what TensorRT refuses: a recording before a first run, a context without workspace, a batch outside of the
profile.  A recording whose context has changed since, or is gone, computes nonsense, as TensorRT says it may.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import types

import numpy as np
import onnx
import onnxruntime

WORKSPACE = 4096


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8 = range(6)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class Flag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class BuilderFlag(enum.IntEnum):
    TF32 = 6


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, DETAILED, NONE = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class CudaGraphStrategy(enum.IntEnum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class DynamicShapesKernelSpecializationStrategy(enum.IntEnum):
    LAZY, EAGER, NONE = range(3)


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self):
        pass


class Fake:
    """A library and its switches.

    Attributes:
        module: To be put into ``sys.modules``.
        refusals: What the library says when it refuses to do something, by the name of the function.
        compiled: Times that TensorRT-RTX had to compile, since no runtime cache held it.
        runs: Batch size and number of the profile of all work that was given to a stream.
        flags: Those of the last plan that was built; TF32 is on unless it is cleared.
        measured: Networks whose kernels TensorRT had to time, since no timing cache held them.
    """

    def __init__(self, driver, *, name="tensorrt", version="10.3.0"):
        self.driver, self.rtx = driver, name == "tensorrt_rtx"
        self.refusals: dict[str, str] = {}
        self.compiled = 0
        self.measured = 0
        self.flags: set[BuilderFlag] = set()
        self.runs: list[tuple[int, int]] = []
        self.module = types.ModuleType(name)
        self.module.__version__ = version
        shared = (DataType, TensorIOMode, BuilderFlag, ProfilingVerbosity, LayerInformationFormat, ILogger)
        for one in (*shared, ExecutionContextAllocationStrategy):
            setattr(self.module, one.__name__, one)
        self.module.NetworkDefinitionCreationFlag = Flag
        self.module.Builder = lambda log: _Builder(self, log)
        self.module.OnnxParser = lambda network, log: _Parser(self, network)
        self.module.Runtime = lambda log: _Runtime(self, log)
        if self.rtx:
            self.module.CudaGraphStrategy = CudaGraphStrategy
            self.module.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy

    def refuses(self, function: str, log) -> bool:
        if words := self.refusals.get(function):
            log.log(Severity.ERROR, words)
        return bool(words)


class _Parser:
    num_errors = 1

    def __init__(self, fake, network):
        self.network = network

    def parse(self, content):
        try:
            model = onnx.load_from_string(content)
        except Exception:
            return False
        (value,) = model.graph.input
        shape = tuple(-1 if one.dim_param else one.dim_value for one in value.type.tensor_type.shape.dim)
        self.network.input, self.network.content = types.SimpleNamespace(name=value.name, shape=shape), content
        return True

    def get_error(self, index):
        return "no model"


class _Builder:
    def __init__(self, fake, log):
        self.fake, self.log = fake, log

    def create_network(self, flags):
        assert flags == 1 << Flag.STRONGLY_TYPED
        network = types.SimpleNamespace(num_layers=10)
        network.get_input = lambda index: network.input
        return network

    def create_optimization_profile(self):
        profile = types.SimpleNamespace()
        profile.set_shape = lambda name, *shapes: setattr(profile, "shapes", shapes)
        return profile

    def create_builder_config(self):
        config = types.SimpleNamespace(profiling_verbosity=ProfilingVerbosity.LAYER_NAMES_ONLY, timings=None)
        if not self.fake.rtx:
            config.create_timing_cache = lambda content: _TimingCache(self.fake, content)
            config.set_timing_cache = lambda timings, ignore: setattr(config, "timings", timings) or timings.fits
            config.get_timing_cache = lambda: config.timings
        config.flags = {BuilderFlag.TF32}
        config.clear_flag = config.flags.discard
        config.profiles = []
        config.add_optimization_profile = config.profiles.append
        return config

    def build_serialized_network(self, network, config):
        if self.fake.refuses("build_serialized_network", self.log):
            return None
        self.fake.flags = config.flags
        if config.timings is not None:
            config.timings.measure(hashlib.sha256(network.content).hexdigest())
        detailed = config.profiling_verbosity == ProfilingVerbosity.DETAILED
        header = {"profiles": [profile.shapes for profile in config.profiles], "detailed": detailed}
        return json.dumps(header).encode() + b"\n" + network.content


class _TimingCache:
    """Times of networks by their hash; those of another GPU do not fit."""

    def __init__(self, fake, content):
        self.fake, self.times = fake, set(json.loads(content or b"[]"))
        self.fits = "foreign" not in self.times

    def measure(self, network):
        self.fake.measured += network not in self.times
        self.times.add(network)

    def serialize(self):
        return json.dumps(sorted(self.times)).encode()


class _Runtime:
    def __init__(self, fake, log):
        assert isinstance(log, ILogger)
        self.fake, self.log = fake, log

    def deserialize_cuda_engine(self, content):
        if self.fake.refuses("deserialize_cuda_engine", self.log):
            return None
        header, _, model = content.partition(b"\n")
        return _Plan(self.fake, self.log, json.loads(header), model)


class _Plan:
    num_io_tensors = 2
    device_memory_size_v2 = WORKSPACE

    def __init__(self, fake, log, header, model):
        self.fake, self.log, self.profiles, self.detailed = fake, log, header["profiles"], header["detailed"]
        self.num_optimization_profiles, self.contexts = len(self.profiles), 0
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # As TensorRT, it keeps biases as they are (reid_edge/export/half_floats.py).
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (self.crops,), (self.features,) = self.session.get_inputs(), self.session.get_outputs()
        weights = onnx.load_from_string(model).graph.initializer
        self.half = any(one.data_type == onnx.TensorProto.FLOAT16 for one in weights)

    def get_tensor_name(self, index):
        return (self.crops, self.features)[index].name

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == self.crops.name else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        uint8 = name == self.crops.name and self.crops.type == "tensor(uint8)"
        return DataType.UINT8 if uint8 else DataType.FLOAT

    def get_tensor_profile_shape(self, name, index):
        assert name == self.crops.name
        return [tuple(shape) for shape in self.profiles[index]]

    def get_tensor_shape(self, name):
        value = self.crops if name == self.crops.name else self.features
        return tuple(-1 if isinstance(size, str) else size for size in value.shape)

    def create_execution_context(self, how=ExecutionContextAllocationStrategy.STATIC):
        if self.fake.refuses("create_execution_context", self.log):
            return None
        user_managed = ExecutionContextAllocationStrategy.USER_MANAGED
        if not isinstance(how, _RuntimeConfig):
            return _Context(self, own_memory=how != user_managed)
        assert how.cuda_graph_strategy == CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return _Context(self, own_memory=how.strategy != user_managed, config=how)

    def create_runtime_config(self):
        return _RuntimeConfig(self)

    def create_engine_inspector(self):
        return _Inspector(self)


class _RuntimeConfig:
    def __init__(self, plan):
        self.cuda_graph_strategy, self.strategy, self.cache = CudaGraphStrategy.DISABLED, None, None
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return _RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class _RuntimeCache:
    def __init__(self):
        self.sizes = set()

    def deserialize(self, content):
        self.sizes = set(json.loads(bytes(content)))
        return True

    def serialize(self):
        return json.dumps(sorted(self.sizes)).encode()


class _Inspector:
    """Answers as the real one does for free batches: the type is not known before a context knows the shape."""

    execution_context = None

    def __init__(self, plan):
        self.plan = plan

    def get_engine_information(self, form):
        known = self.execution_context is not None and self.execution_context.shape is not None
        words = "Channel major FP16 format where channel % 8 == 0" if self.plan.half else "Row major linear FP32"
        output = {"Name": "a", "Location": "Device", "Format/Datatype": words if known else "N/A due to dynamic shapes"}
        layers = [{"Name": f"conv{n}", "LayerType": "CaskConvolution", "Outputs": [output]} for n in range(3)]
        return json.dumps({"Layers": layers if self.plan.detailed else ["conv"], "Bindings": ["crops", "features"]})


class _Context:
    def __init__(self, plan, *, own_memory, config=None):
        self.plan, self.config = plan, config
        self.shape, self.addresses, self.ready = None, {}, own_memory
        self.state = types.SimpleNamespace(changes=0, gone=False)  # recorded work sees it, not the context
        self.profile = None if plan.contexts and len(plan.profiles) > 1 else 0
        plan.contexts += 1
        self.has_run = None

    def __del__(self):
        self.state.gone = True  # its memory on the GPU goes with it

    def set_device_memory(self, address, size):
        self.ready = size >= WORKSPACE and address % 256 == 0
        self.state.changes += 1

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        self.state.changes += 1
        return True

    def set_optimization_profile_async(self, index, stream):
        if index >= len(self.plan.profiles) or self.plan.fake.refuses("set_optimization_profile_async", self.plan.log):
            return False
        self.profile, self.shape = index, None
        self.state.changes += 1
        return True

    def set_input_shape(self, name, shape):
        if self.profile is None:
            return False
        smallest, _usual, largest = self.plan.profiles[self.profile]
        if not smallest[0] <= shape[0] <= largest[0] or list(shape[1:]) != largest[1:]:
            return False
        self.shape = tuple(shape)
        self.state.changes += 1
        return True

    def execute_async_v3(self, stream):
        fake, driver = self.plan.fake, self.plan.fake.driver
        recording = driver.is_recording(stream)
        if fake.refuses("execute_async_v3", self.plan.log) or not self.ready:
            return False
        if recording and (fake.refuses("recording", self.plan.log) or self.has_run != self.state.changes):
            driver.library.fake_break_recording(stream)
            return False
        if self.config is not None:
            self._compile(self.shape[0])
        self.has_run = changes = self.state.changes
        shape, addresses, plan, state = self.shape, dict(self.addresses), self.plan, self.state
        fake.runs.append((shape[0], self.profile))

        def compute():
            dtype = np.uint8 if plan.crops.type == "tensor(uint8)" else np.float32
            crops = _array(driver, addresses[plan.crops.name], shape, dtype)
            (found,) = plan.session.run(None, {plan.crops.name: crops})
            nonsense = state.gone or (recording and changes != state.changes)
            _array(driver, addresses[plan.features.name], found.shape, np.float32)[:] = np.nan if nonsense else found

        driver.enqueue(stream, compute)
        return True

    def _compile(self, size):
        """Compile for a new size: at once, or by another thread, which is not ready before the process ends."""
        if size in self.config.cache.sizes:
            return
        self.plan.fake.compiled += 1
        eager = DynamicShapesKernelSpecializationStrategy.EAGER
        if self.config.dynamic_shapes_kernel_specialization_strategy == eager:
            self.config.cache.sizes.add(size)


def _array(driver, address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    start = driver.library.fake_host(address)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start)).view(dtype).reshape(shape)
