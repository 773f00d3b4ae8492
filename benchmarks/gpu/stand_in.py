"""Stand in for TensorRT where it cannot be had: a plan is a network of the checkpoint, and torch computes it.

Everything that the engine does with CUDA is real then: memory, copies, the stream, recordings, threads.
"""

from __future__ import annotations

import enum
import hashlib
import json
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec

import numpy as np
import torch

from reid_edge.bundle import Bundle
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.osnet.rewrites import Rewrite, rewrite

INPUT, OUTPUT = "crops", "features"


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8 = range(6)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class Flag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class BuilderFlag(enum.IntEnum):
    TF32 = 6


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity


class Gpu:
    """Where torch computes: on the real GPU, at the addresses and in the stream that it is given."""

    device = torch.device("cuda")

    def view(self, address: int, shape: tuple[int, ...], kind: str) -> torch.Tensor:
        """Return memory of the GPU as a tensor; ``kind`` is NumPy's, e.g. ``|u1``."""
        described = {"data": (address, False), "shape": shape, "typestr": kind, "version": 3, "strides": None}
        held = types.SimpleNamespace(__cuda_array_interface__=described)
        return torch.as_tensor(held, device=self.device)

    def compute(self, stream: int, pool: object, work: Callable[[], None]) -> None:
        """Give a stream the work; memory for what lies between comes from a pool that nobody else uses."""
        place = torch.cuda.stream(torch.cuda.ExternalStream(stream))
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # as in our plans
        with place, torch.cuda.use_mem_pool(pool), exact:  # type: ignore[arg-type]
            work()

    def pool(self) -> object:
        return torch.cuda.MemPool()


class Network(torch.nn.Module):
    """The checkpoint's network from uint8 pixels to features, as the files of a bundle compute it."""

    def __init__(self, checkpoint: Checkpoint, wanted: Rewrite, *, half: bool) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (checkpoint.info.mean, checkpoint.info.std))
        self.register_buffer("mean", 255 * mean)
        self.register_buffer("std", 255 * std)
        network = rewrite(checkpoint.network(), wanted)
        self.network = (network.half() if half else network).eval()

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        pixels = crops.flip(3).permute(0, 3, 1, 2).float()
        return self.network(((pixels - self.mean) / self.std).to(next(self.network.parameters()).dtype)).float()


def install(bundle: Bundle, checkpoint: Checkpoint, place: Gpu) -> None:
    """Let ``import tensorrt`` find this stand-in, for the ONNX files of a bundle in FP32 and FP16."""
    precisions = {
        artifact.files[0].sha256: artifact.precision
        for artifact in bundle.manifest.artifacts
        if artifact.engine == "onnxruntime"
    }
    size = bundle.manifest.input.size

    def network_of(onnx: bytes) -> Network:
        half = precisions[hashlib.sha256(onnx).hexdigest()] == "fp16"
        return Network(checkpoint, Rewrite(), half=half).to(place.device)

    module = types.ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__dict__.update(
        __version__="10.3.0",
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        NetworkDefinitionCreationFlag=Flag,
        BuilderFlag=BuilderFlag,
        LayerInformationFormat=LayerInformationFormat,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        ILogger=ILogger,
        Builder=lambda log: _Builder((-1, *size, 3)),
        OnnxParser=lambda network, log: _Parser(network),
        Runtime=lambda log: _Runtime(network_of, place),
    )
    sys.modules["tensorrt"] = module


class _Parser:
    num_errors = 0

    def __init__(self, network: types.SimpleNamespace) -> None:
        self._network = network

    def parse(self, content: bytes) -> bool:
        self._network.content = content
        return True


class _Builder:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self._crops = types.SimpleNamespace(name=INPUT, shape=shape)

    def create_network(self, flags: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(num_layers=0, get_input=lambda index: self._crops)

    def create_optimization_profile(self) -> types.SimpleNamespace:
        profile = types.SimpleNamespace()
        profile.set_shape = lambda name, *shapes: setattr(profile, "shapes", shapes)
        return profile

    def create_builder_config(self) -> types.SimpleNamespace:
        config = types.SimpleNamespace(profiles=[], clear_flag=lambda flag: None)
        config.add_optimization_profile = config.profiles.append
        return config

    def build_serialized_network(self, network: types.SimpleNamespace, config: types.SimpleNamespace) -> bytes:
        return json.dumps([profile.shapes for profile in config.profiles]).encode() + b"\n" + network.content


class _Runtime:
    def __init__(self, network_of: Callable[[bytes], Network], place: Gpu) -> None:
        self._network_of, self._place = network_of, place

    def deserialize_cuda_engine(self, content: bytes) -> _Plan:
        profiles, _, onnx = content.partition(b"\n")
        return _Plan(json.loads(profiles), self._network_of(onnx), self._place)


class _Plan:
    num_io_tensors = 2
    device_memory_size_v2 = 256

    def __init__(self, profiles: list[list[list[int]]], network: Network, place: Gpu) -> None:
        self.profiles, self.network, self.place = profiles, network, place
        self.num_optimization_profiles = len(profiles)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        return self.profiles[index]

    def get_tensor_name(self, index: int) -> str:
        return (INPUT, OUTPUT)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == INPUT else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.UINT8 if name == INPUT else DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.profiles[0][0][1:]) if name == INPUT else (-1, self.network.network.config.feature_dim)

    def create_execution_context(self, how: object = None) -> _Context:
        return _Context(self)

    def create_engine_inspector(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(get_engine_information=lambda form: '{"Layers": []}')


class _Context:
    def __init__(self, plan: _Plan) -> None:
        self._plan, self._addresses, self._pool = plan, dict[str, int](), plan.place.pool()
        self._shape: tuple[int, ...] = ()
        self._profile = 0

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._plan.device_memory_size_v2

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        smallest, _usual, largest = self._plan.profiles[self._profile]
        return smallest[0] <= shape[0] <= largest[0]

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._profile = index
        return True

    def execute_async_v3(self, stream: int) -> bool:
        plan, place = self._plan, self._plan.place
        features = (self._shape[0], plan.network.network.config.feature_dim)

        def work() -> None:
            with torch.no_grad():
                crops = place.view(self._addresses[INPUT], self._shape, np.dtype(np.uint8).str)
                place.view(self._addresses[OUTPUT], features, np.dtype(np.float32).str).copy_(plan.network(crops))

        place.compute(stream, self._pool, work)
        return True
