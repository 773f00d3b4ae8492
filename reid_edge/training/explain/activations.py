"""Run images through a network and record the weights of its last gates and the activations of its last convolution."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
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
from reid_edge.types import Image

Array = npt.NDArray[np.float32]

#: Images in memory at a time.
BLOCK = 32
#: Share of an activation map's colours in its overlay.
OVERLAY = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations:
    """Gate weights and activation maps of N images.

    Attributes:
        gates: N×T×C float32, the weights in (0, 1) that the last bottleneck's gate gave to the T streams' C channels
            (C is 1 for a stream-wise gate); None if the network has no gate that depends on the image.
        maps: N×h×w float32, the activation maps of conv5 (:func:`activation_map`).
    """

    gates: Array | None
    maps: Array


@dataclass(frozen=True)
class _Records:
    """Records of one forward pass: a gate vector for each stream, in order, and one batch of maps."""

    gates: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)


def check_gated(variant: NetworkVariant) -> None:
    """Check that a variant has gates that can be clustered.

    Raises:
        UsageError: It has none, or none that depends on the image.
    """
    if variant.fusion not in GATED:
        raise UsageError(
            f"a network with fusion={variant.fusion} has no gates that depend on the image (those with "
            f"{', '.join(GATED)} do), so there is nothing to cluster; use --clusters 0 for activation maps alone."
        )


def activation_map(activations: Tensor) -> Tensor:
    """Sum the squared activations over the channels, and scale the map to an ℓ2 norm of 1.

    After Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, section 3.1 (p = 2), as
    torchreid's ``tools/visualize_actmap.py`` has it; the paper's Figure 6 sums absolute values (p = 1).

    Args:
        activations: N×C×h×w.

    Returns:
        N×h×w, not negative; all zero where nothing was active.
    """
    squares = activations.square().sum(1)
    return nn.functional.normalize(squares.flatten(1)).view_as(squares)


@torch.inference_mode()
def record_activations(
    network: OSNet,
    info: CheckpointInfo,
    paths: Sequence[Path],
    on_block: Callable[[int], object] = lambda _count: None,
) -> Activations:
    """Run images, each one crop, through a network and record what the paper's Figures 5 and 6 show.

    Args:
        network: Network in evaluation mode; it runs on the device of its weights.
        info: Description of its checkpoint, for input size and pixel statistics.
        paths: N image files, at least one.
        on_block: Called with the number of images done since the last call.

    Raises:
        FrameError: A file is not a readable image.
    """
    device = next(network.parameters()).device
    gates, maps = [], []
    for start in range(0, len(paths), BLOCK):
        block = paths[start : start + BLOCK]
        with _recording(network) as records:
            network(torch.from_numpy(_inputs(block, info)).to(device))
        maps.append(records.maps[0].cpu().numpy())
        if records.gates:
            gates.append(torch.stack(records.gates, 1).cpu().numpy())
        on_block(len(block))
    return Activations(gates=np.concatenate(gates) if gates else None, maps=np.concatenate(maps))


def _inputs(paths: Sequence[Path], info: CheckpointInfo) -> Array:
    """Read and normalise images as the camera agent does: N×3×H×W float32, RGB."""
    pixels = np.empty((len(paths), *info.size, 3), np.uint8)
    for path, out in zip(paths, pixels, strict=True):
        resize_into(read_image(path), out)
    return normalised(pixels, info.mean, info.std)


@contextlib.contextmanager
def _recording(network: OSNet) -> Iterator[_Records]:
    """Record the last bottleneck's gate weights and conv5's maps of the forward pass inside the block."""
    records = _Records()

    def on_gate(gate: Gate, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        records.gates.append(gate.weights(inputs[0].mean((2, 3), keepdim=True)).flatten(1))

    def on_conv5(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        records.maps.append(activation_map(output))

    hooks = [gate.register_forward_hook(on_gate) for gate in _last_gates(network)]
    hooks.append(network.conv5.register_forward_hook(on_conv5))
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


def _last_gates(network: OSNet) -> Iterable[Gate]:
    """Return the last bottleneck's gates that depend on the image: the shared one, or one for each stream."""
    last = network.conv4[-1]
    assert isinstance(last, Bottleneck)
    return [gate for gate in last.gate.modules() if isinstance(gate, Gate)]


def overlay(image: Image, activations: npt.NDArray[np.float32]) -> Image:
    """Draw an activation map over its image, in colours from blue (lowest) to red (highest).

    Args:
        image: H×W×3 uint8 BGR.
        activations: h×w, enlarged to H×W; its range in this image is stretched over all colours.

    Returns:
        H×W×3 uint8 BGR.
    """
    height, width = image.shape[:2]
    enlarged = np.asarray(cv2.resize(activations, (width, height), interpolation=cv2.INTER_LINEAR))
    low, high = float(enlarged.min()), float(enlarged.max())
    stretched = ((enlarged - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(stretched, cv2.COLORMAP_TURBO)
    return np.asarray(cv2.addWeighted(image, 1 - OVERLAY, colours, OVERLAY, 0), np.uint8)
