"""One pass over images, with what the last gates and the last convolution did kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reid_edge.crops import normalised, resize_into
from reid_edge.errors import UsageError
from reid_edge.images import read_image
from reid_edge.osnet.architecture import GATED, NetworkVariant
from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.osnet.network import Bottleneck, Gate, OSNet

Array = npt.NDArray[np.float32]

#: Images in memory at a time.
BLOCK = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Inside:
    """What went on in a network for N images.

    Attributes:
        gates: N×T×C, the weights in (0, 1) that the last bottleneck's gate gave to the T streams' C channels (C is 1
            where the gate is stream-wise); None where the network has no gate that depends on the image.
        maps: N×h×w, where conv5 was active: see :func:`activation_map`.
    """

    gates: Array | None
    maps: Array


@dataclass(frozen=True)
class _Kept:
    """Of one forward pass: a gate vector a stream, in order, and one map."""

    gates: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)


def check_gated(variant: NetworkVariant) -> None:
    """Make sure that a variant has gates to look at.

    Raises:
        UsageError: It has none, or none that depends on the image.
    """
    if variant.fusion not in GATED:
        raise UsageError(
            f"a network with fusion={variant.fusion} has no gates that depend on the image (those with "
            f"{', '.join(GATED)} do), so there is nothing to cluster; use --clusters 0 for activation maps alone."
        )


def activation_map(activations: Tensor) -> Tensor:
    """Sum of squared activations over the channels, with an ℓ2 norm of 1.

    After Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, section 3.1 (p = 2), as the paper's
    Figure 6 and torchreid's ``tools/visualize_actmap.py`` have it.

    Args:
        activations: N×C×h×w.

    Returns:
        N×h×w, not negative; all zero where nothing was active.
    """
    squares = activations.square().sum(1)
    return nn.functional.normalize(squares.flatten(1)).view_as(squares)


@torch.inference_mode()
def look_inside(
    network: OSNet,
    info: CheckpointInfo,
    paths: Sequence[Path],
    on_block: Callable[[int], object] = lambda _count: None,
) -> Inside:
    """Run images, each one crop, through a network and keep what the paper's Figures 5 and 6 show.

    Args:
        network: In evaluation mode; it runs where its weights are.
        info: Of its checkpoint: input size and pixel statistics.
        paths: N image files, at least one.
        on_block: Called with the number of images done since the last call.

    Raises:
        FrameError: A file that is not a readable image.
    """
    device = next(network.parameters()).device
    gates, maps = [], []
    for start in range(0, len(paths), BLOCK):
        block = paths[start : start + BLOCK]
        with _kept(network) as kept:
            network(torch.from_numpy(_inputs(block, info)).to(device))
        maps.append(kept.maps[0].cpu().numpy())
        if kept.gates:
            gates.append(torch.stack(kept.gates, 1).cpu().numpy())
        on_block(len(block))
    return Inside(gates=np.concatenate(gates) if gates else None, maps=np.concatenate(maps))


def _inputs(paths: Sequence[Path], info: CheckpointInfo) -> Array:
    """N×3×H×W, normalised, by the rule of the camera."""
    pixels = np.empty((len(paths), *info.size, 3), np.uint8)
    for path, out in zip(paths, pixels, strict=True):
        resize_into(read_image(path), out)
    return normalised(pixels, info.mean, info.std)


@contextlib.contextmanager
def _kept(network: OSNet) -> Iterator[_Kept]:
    """Keep what the last bottleneck's gates and conv5 give while the block runs."""
    kept = _Kept()

    def on_gate(gate: Gate, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        kept.gates.append(gate.weights(inputs[0].mean((2, 3), keepdim=True)).flatten(1))

    def on_conv5(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        kept.maps.append(activation_map(output))

    hooks = [gate.register_forward_hook(on_gate) for gate in _last_gates(network)]
    hooks.append(network.conv5.register_forward_hook(on_conv5))
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _last_gates(network: OSNet) -> Iterable[Gate]:
    """The gates of the last bottleneck that depend on the image: the shared one, or each stream's."""
    last = network.conv4[-1]
    assert isinstance(last, Bottleneck)
    return [gate for gate in last.gate.modules() if isinstance(gate, Gate)]
