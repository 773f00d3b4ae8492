"""Training of one network by several processes, over torch.distributed.

Every process holds the whole network and a slice of each batch.  A loss is the mean over the slice, so the gradient
of the whole batch's loss is the mean of the processes' gradients (:func:`average`); what couples images of different
slices, that is batch norm (:func:`synchronise_batch_norms`) and hard mining (:func:`gathered`), sees the whole batch.
In one process all of this does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as group
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reid_edge.errors import SettingsError, TrainingError
from reid_edge.training import distributed

#: What torchrun sets.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def rank() -> int:
    """Return the number of this process, from 0."""
    return group.get_rank() if _active() else 0


def world() -> int:
    """Return the number of processes."""
    return group.get_world_size() if _active() else 1


def pick_device(name: str) -> torch.device:
    """Return the device of this process: ``cpu``, ``cuda``, or for ``auto`` a GPU if there is one.

    Of several processes on a machine each gets a GPU of its own, in order of torchrun's LOCAL_RANK.

    Raises:
        SettingsError: A GPU is asked for but torch finds none, or there are more processes than GPUs.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SettingsError(
            "run.device is 'cuda', but torch finds no GPU here; install torch with CUDA, or use --device cpu."
        )
    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= there:
        raise SettingsError(
            f"process {number} on this machine has no GPU: torch finds {there}; "
            f"use torchrun --nproc-per-node {there}, or --device cpu."
        )
    return torch.device("cuda", number)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started; without torchrun, do nothing.

    Raises:
        SettingsError: Some of torchrun's environment variables are missing.
        TrainingError: The other processes cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _active():
        yield
        return
    if missing := [name for name in _VARIABLES if name not in os.environ]:
        raise SettingsError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; "
            "start several processes with torchrun, or unset WORLD_SIZE."
        )
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    try:
        group.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    except (group.DistError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise TrainingError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} cannot join the others at {where} ({error}); "
            "check that torchrun runs on every machine and that they reach that address."
        ) from error
    try:
        yield
    finally:
        group.destroy_process_group()


def gathered(tensor: Tensor) -> Tensor:
    """Return the processes' tensors, each N×…, one after another: (N × processes)×….

    The gradient of each process's loss reaches the tensor's owner, summed: with :func:`average` of the parameters'
    gradients, a loss that every process computes of the whole gathered batch has the gradient of one process.
    """
    return _Gather.apply(tensor) if world() > 1 else tensor  # type: ignore[no-untyped-call]


def summed(tensor: Tensor) -> Tensor:
    """Return the sum over the processes, with gradient."""
    return _Sum.apply(tensor) if world() > 1 else tensor  # type: ignore[no-untyped-call]


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one device by their means over the processes, in place, in one message per dtype."""
    if world() == 1:
        return
    # In order of appearance, since a set's order differs between processes.
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in chosen])
        group.all_reduce(flat)
        parts = torch.split(flat / world(), [tensor.numel() for tensor in chosen])
        torch._foreach_copy_(chosen, [part.view_as(tensor) for part, tensor in zip(parts, chosen, strict=True)])


def share_state(module: nn.Module) -> None:
    """Give every process the first one's weights and buffers, in place."""
    if world() > 1:
        for tensor in module.state_dict().values():
            group.broadcast(tensor, 0)


def any_of(flag: bool, device: torch.device) -> bool:
    """Return, alike in every process, True if the flag is set in any of them; waits for all of them."""
    if world() == 1:
        return flag
    tensor = torch.tensor(float(flag), device=device)
    group.all_reduce(tensor, group.ReduceOp.MAX)
    return bool(tensor.item())


def wait_for_all() -> None:
    """Wait until every process has made this call."""
    if world() > 1:
        group.barrier()


def _active() -> bool:
    return group.is_available() and group.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(world())]
        group.all_gather(parts, tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        group.all_reduce(gradient)
        return gradient.chunk(world())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        group.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        group.all_reduce(gradient)
        return gradient


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all processes' batches, which must be of one size.

    torch's own ``SyncBatchNorm`` has fused kernels for GPUs and refuses a CPU; this one is a few plain operations on
    any device.  N×C or N×C×H×W float.  The parameters' and buffers' names are those of ``nn.BatchNorm2d``.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Any number of dimensions from 2 on."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise as ``nn.BatchNorm2d`` does, over the images of all processes."""
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


def synchronise_batch_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm in a module by one over all processes, with its parameters; alone, change nothing."""
    if distributed.world() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return,no-untyped-call]
    for name, child in module.named_children():
        setattr(
            module,
            name,
            _synchronised(child) if isinstance(child, _BatchNorm) else synchronise_batch_norms(child, device),
        )
    return module


def _synchronised(norm: _BatchNorm) -> SyncBatchNorm:
    norm_of_all = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    norm_of_all.weight, norm_of_all.bias = norm.weight, norm.bias
    norm_of_all.running_mean, norm_of_all.running_var = norm.running_mean, norm.running_var
    norm_of_all.num_batches_tracked = norm.num_batches_tracked
    return norm_of_all.train(norm.training)
