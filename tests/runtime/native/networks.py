"""Plans of torch networks, and the features that torch computes in float64."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
import torch

from reid_edge.manifest import InputSpec
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.folding import fold, fold_scale
from reid_edge.osnet.network import OSNet
from reid_edge.runtime.native.library import LIBRARY, available_kernels
from reid_edge.runtime.native.plan import make_plan

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

needs_library = pytest.mark.skipif(
    not LIBRARY.exists(), reason="the native engine is not built: python native/compile_library.py"
)

variants = st.builds(
    NetworkVariant,
    streams=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(lambda depths: tuple(sorted(depths))),
    fusion=st.sampled_from(["unified", "separate", "streamwise", "fixed", "addition", "concatenation"]),
    blocks=st.tuples(*[st.integers(1, 3)] * 3),
    instance_norm=st.booleans(),
)
configs = st.builds(
    OSNetConfig,
    width=st.floats(0.02, 1.2),
    size=st.tuples(st.integers(13, 90), st.integers(13, 90)),
    feature_dim=st.integers(1, 600),
    variant=variants,
)


def kernels_of(precision):
    """Names of the kernels that run here; none where the library is missing."""
    return available_kernels(precision) if LIBRARY.exists() else ("portable",)


def plan_of(network: OSNet) -> bytes:
    folded = fold_scale(fold(network), STD)
    weights = {name: value.numpy() for name, value in folded.state_dict().items()}
    return make_plan(weights, network.config.size, MEAN)


def plan_of_onnx(path: Path, spec: InputSpec) -> bytes:
    initializers = onnx.load(path).graph.initializer
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in initializers}
    floats = {name: value for name, value in weights.items() if value.dtype == np.float32}
    return make_plan(floats, spec.size, spec.mean)


def expected_features(network: OSNet, pixels: np.ndarray) -> np.ndarray:
    """Normalise by hand and run the network as trained, in its own float type."""
    dtype = network.fc.weight.dtype
    rgb = torch.from_numpy(pixels[..., ::-1].copy()).to(dtype).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values, dtype=dtype).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return network((rgb - mean) / std).numpy()


def random_pixels(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def cosine(got: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine similarity of two rows."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    return float(((got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)).min())
