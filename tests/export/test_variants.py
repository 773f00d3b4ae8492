"""Every kind of variant (separate gates with the rewrites), and every rewrite, exported and run by real engines."""

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch

from reid_edge.benchmark.onnx_complexity import onnx_mult_adds
from reid_edge.export.onnx import Deployable, export_onnx
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.osnet.complexity import complexity, count_mult_adds
from reid_edge.osnet.folding import fold
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.rewrites import Rewrite, rewrite
from tests.osnet.test_variants import unlike_new
from tests.osnet.variants import Obvious

SIZE = (40, 24)
# Two short streams and a block a stage: the exporter takes seconds for every ten layers.
SHORT = {"streams": (1, 2), "blocks": (1, 1, 1)}
KINDS = {
    "full conv": NetworkVariant(convolution="standard", **SHORT),
    "concatenation": NetworkVariant(fusion="concatenation", **SHORT),
    "stream-wise gates": NetworkVariant(fusion="streamwise", **SHORT),
    "learned-and-fixed gates": NetworkVariant(fusion="fixed", **SHORT),
    "IBN": NetworkVariant(instance_norm=True, **SHORT),
    "AIN": NetworkVariant(ain=True, streams=(1, 2)),
    "addition, one stream, stages of their own depth": NetworkVariant(
        streams=(1,), fusion="addition", blocks=(1, 2, 1)
    ),
}


def _network(variant: NetworkVariant) -> tuple[OSNet, CheckpointInfo]:
    info = CheckpointInfo(width=0.15, size=SIZE, variant=variant)
    torch.manual_seed(0)
    return unlike_new(OSNet(OSNetConfig(width=info.width, size=SIZE, variant=variant))), info


def _assert_engines_agree(path, network: OSNet, info: CheckpointInfo) -> None:
    """Both engines' features are those of plain arithmetic in float64 on the checkpoint's own weights."""
    crops = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    normalised = (crops[..., ::-1] / 255 - np.array(info.mean)) / np.array(info.std)
    x = torch.from_numpy(np.ascontiguousarray(normalised.transpose(0, 3, 1, 2)))
    expected = Obvious(network.double().state_dict(), info.variant)(x).detach().numpy()
    assert expected.std() > 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(path), "CPU", exact)
    for got in (session.run(None, {"crops": crops})[0], compiled(crops)[0]):
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("variant", KINDS.values(), ids=KINDS)
def test_engines_compute_what_the_variant_computes(variant, tmp_path):
    network, info = _network(variant)
    path = tmp_path / "model.onnx"
    export_onnx(Deployable(fold(network), info, "pixels"), path)
    assert onnx_mult_adds(path) == complexity(info.config).mult_adds
    _assert_engines_agree(path, network, info)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["unified", "separate"])
def test_engines_compute_what_the_checkpoint_computes_whatever_was_rewritten(fusion, tmp_path):
    network, info = _network(NetworkVariant(streams=(1, 2, 2), fusion=fusion, blocks=(1, 1, 1)))
    rewritten = rewrite(network, Rewrite(merge=True, batch_gates=True, join=True))
    path = tmp_path / "model.onnx"
    export_onnx(Deployable(rewritten, info, "pixels"), path)
    assert onnx_mult_adds(path) == count_mult_adds(rewritten, torch.zeros(1, 3, *SIZE))
    _assert_engines_agree(path, network, info)
    _assert_names_say_what_nodes_are(onnx.load(path))


def _assert_names_say_what_nodes_are(model: onnx.ModelProto) -> None:
    """Quantization goes by them: gates stay in float."""
    nodes = [node for node in model.graph.node if node.name.startswith("conv2.0.")]
    convolutions = [node.name.split("/")[0].split(".")[2] for node in nodes if node.op_type == "Conv"]
    assert sorted(convolutions) == ["gate", "gate", "join", "reduce", *4 * ["streams"]]
    gating = [node.name for node in nodes if node.op_type in ("ReduceMean", "Sigmoid", "Mul")]
    assert [name.split("_")[0] for name in gating].count("conv2.0.gate/Sigmoid") == 1  # all streams at once
    assert all(name.startswith("conv2.0.gate") for name in gating)
