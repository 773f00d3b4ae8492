"""Calibration inputs made from a checkpoint alone: no photograph of anyone is needed.

Inputs are optimised until the statistics that they cause at every batch norm match the ones stored there in training
(data-free quantization: Cai et al., ZeroQ, CVPR 2020, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reid_edge.osnet.checkpoint import Checkpoint

#: 50 steps at 0.1 calibrate as well as 110 at 0.05, in half the time (docs/quantization.md).
STEPS = 50
LEARNING_RATE = 0.1
#: Enough for golden crops, which only have to excite the network.
GOLDEN_STEPS = 25
#: Weight of the total variation, which keeps the inputs as smooth as photographs are.
SMOOTHNESS = 0.5
#: Inputs optimised together: their joint statistics are matched.
BATCH = 32


def distill(
    checkpoint: Checkpoint,
    count: int,
    *,
    size: tuple[int, int],
    seed: int = 0,
    steps: int = STEPS,
    on_step: Callable[[], object] = lambda: None,
) -> npt.NDArray[np.uint8]:
    """Make inputs that excite the network as its training data did.

    Args:
        checkpoint: Weights with their batch-norm statistics.
        count: How many; made in batches of at most 32.
        size: Height and width, pixels.
        seed: Other seeds give other inputs.
        steps: Optimisation steps for each batch.
        on_step: Called after each step: ``steps`` × the number of batches times.

    Returns:
        count×H×W×3 uint8, BGR.
    """
    network = checkpoint.network().requires_grad_(False)
    mean = torch.tensor(checkpoint.info.mean).view(1, 3, 1, 1)
    std = torch.tensor(checkpoint.info.std).view(1, 3, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for batch in _batches(count):
        inputs = _optimise(
            network, _smooth_noise(batch, size, generator), -mean / std, (1 - mean) / std, steps, on_step
        )
        batches.append(((inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8))
    rgb = torch.cat(batches).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(rgb[..., ::-1])


def distill_steps(count: int) -> int:
    """Optimisation steps that :func:`distill` takes for ``count`` inputs by default."""
    return STEPS * len(_batches(count))


def _batches(count: int) -> list[int]:
    whole, rest = divmod(count, BATCH)
    return [BATCH] * whole + ([rest] if rest else [])


def _smooth_noise(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Noise of several scales, the coarse ones strongest."""
    noise = torch.zeros(count, 3, *size)
    for divisor in (32, 16, 8, 4):
        coarse = torch.randn(count, 3, *(max(2, side // divisor) for side in size), generator=generator)
        noise += nn.functional.interpolate(coarse, size, mode="bicubic") * divisor / 32
    return noise


def _optimise(
    network: nn.Module, start: Tensor, low: Tensor, high: Tensor, steps: int, on_step: Callable[[], object]
) -> Tensor:
    inputs = start.clamp(low, high).requires_grad_()
    optimizer = torch.optim.Adam([inputs], lr=LEARNING_RATE)
    losses: list[Tensor] = []

    def compare(layer: nn.Module, received: tuple[Tensor, ...]) -> None:
        losses.append(_statistics_distance(layer, received[0]))

    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    handles = [layer.register_forward_pre_hook(compare) for layer in norms]
    try:
        for _ in range(steps):
            losses.clear()
            network(inputs)
            loss = torch.stack(losses).sum() + SMOOTHNESS * _total_variation(inputs)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                inputs.clamp_(low, high)
            on_step()
    finally:
        for handle in handles:
            handle.remove()
    return inputs.detach()


def _statistics_distance(layer: nn.Module, x: Tensor) -> Tensor:
    stored_mean, stored_variance = layer.running_mean, layer.running_var
    assert isinstance(stored_mean, Tensor) and isinstance(stored_variance, Tensor)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    epsilon = 1e-5
    mean_error = (mean - stored_mean) ** 2 / (stored_variance + epsilon)
    spread_error = (torch.sqrt((variance + epsilon) / (stored_variance + epsilon)) - 1) ** 2
    return mean_error.mean() + spread_error.mean()


def _total_variation(images: Tensor) -> Tensor:
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()
