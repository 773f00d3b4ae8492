"""Write a network as ONNX: float32 or float16, free batch, nodes named after the modules that they come from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.osnet.folding import fold_scale
from reid_edge.osnet.network import OSNet

INPUT = "crops"
OUTPUT = "features"
#: The newest that the parser of TensorRT 10.3 takes (onnx-tensorrt 10.0 to 10.3: opset 9 to 20), which JetPack 6 has.
OPSET = 20

InputFormat = Literal["pixels", "tensor"]


class Deployable(nn.Module):
    """A network behind the input that a camera gives it.

    Args:
        network: Any exact rewrite of the checkpoint's network.
        info: The checkpoint's mean and std.
        input_format: ``pixels``: N×H×W×3 uint8 BGR; ``tensor``: N×3×H×W float32, RGB, normalised by the caller.
        half: Compute in float16.  The mean is subtracted in float32 (a pixel minus mean needs more than half's 11
            bits) and features leave in float32.
    """

    def __init__(self, network: OSNet, info: CheckpointInfo, input_format: InputFormat, *, half: bool = False) -> None:
        super().__init__()
        self.input_format = input_format
        self.size = network.config.size
        self.mean_bgr: Tensor
        self.register_buffer("mean_bgr", 255.0 * torch.tensor(info.mean[::-1]).view(1, 3, 1, 1))
        network = fold_scale(network, info.std) if input_format == "pixels" else deepcopy(network)
        self.network = (network.half() if half else network).eval()

    def forward(self, crops: Tensor) -> Tensor:
        if self.input_format == "pixels":
            # TensorRT lets uint8 only into a cast, so the cast comes before the transposition.
            crops = crops.float().permute(0, 3, 1, 2) - self.mean_bgr
        return self.network(crops.to(self.network.fc.weight.dtype)).float()  # type: ignore[no-any-return]

    def example(self) -> Tensor:
        """Return two blank crops (two: the exporter takes a batch of one for a constant)."""
        height, width = self.size
        if self.input_format == "pixels":
            return torch.zeros(2, height, width, 3, dtype=torch.uint8)
        return torch.zeros(2, 3, height, width)


def export_onnx(network: Deployable, path: Path) -> None:
    """Write a network as ONNX and check the file."""
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network,
            (network.example(),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_nodes(model)
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name each node ``module.path/operator_number`` instead of the exporter's running numbers, and drop its notes."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{_module_path(node)}/{node.op_type}_{number}"
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]


def _module_path(node: onnx.NodeProto) -> str:
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = [part.strip(" '[]\"") for part in notes.get("pkg.torch.onnx.name_scopes", "").split(",")]
    return next((scope for scope in reversed(scopes[:-1]) if scope), "").removeprefix("network.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress, its note on torchvision and its own deprecations; errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
