"""Batch norm over the images of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reid_edge.training import distributed


class SharedNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all processes' batches, which must be of one size.

    torch's own ``SyncBatchNorm`` has fused kernels for GPUs and refuses a CPU; this one is a few plain operations on
    any device.  N×C or N×C×H×W float.  The parameters' and buffers' names are those of ``nn.BatchNorm2d``.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Any number of dimensions from 2 on."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.BatchNorm2d``."""
        if not self.training:
            return super().forward(x)
        dims = [dim for dim in range(x.ndim) if dim != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.numel() // x.shape[1] * distributed.world()
        # Two passes: E[x²] − E[x]² would cancel in single precision.
        mean = distributed.summed(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = distributed.summed(centred.square().sum(dims)) / count
        self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def share_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm within by one over all processes, keeping its parameters; alone, change nothing."""
    if distributed.world() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return,no-untyped-call]
    for name, child in module.named_children():
        setattr(module, name, _shared(child) if isinstance(child, _BatchNorm) else share_norms(child, device))
    return module


def _shared(norm: _BatchNorm) -> SharedNorm:
    shared = SharedNorm(norm.num_features, norm.eps, norm.momentum)
    shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    return shared.train(norm.training)
