"""Several processes that train one network: what they tell one another (torch.distributed).

Every process holds the whole network and a slice of each batch.  A loss is the mean over the slice, so the gradient
of the whole batch's loss is the mean of the processes' gradients (:func:`average`); what couples images of different
slices, that is batch norm (:mod:`reid_edge.training.norms`) and hard mining (:func:`gathered`), sees the whole batch.
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

from reid_edge.errors import SettingsError, TrainingError

#: What torchrun sets.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def rank() -> int:
    """This process's number, from 0."""
    return group.get_rank() if _active() else 0


def world() -> int:
    """Number of processes."""
    return group.get_world_size() if _active() else 1


def pick_device(name: str) -> torch.device:
    """The device of this process: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.

    Of several processes on a machine each gets a GPU of its own, in order of torchrun's LOCAL_RANK.

    Raises:
        SettingsError: A GPU is asked for and not there, or there are more processes than GPUs.
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
    """The processes' tensors, each N×…, one after another: (N × processes)×….

    The gradient of each process's loss reaches the tensor's owner, summed: with :func:`average` of the parameters'
    gradients, a loss that every process computes of the whole gathered batch has the gradient of one process.
    """
    return _Gather.apply(tensor) if world() > 1 else tensor  # type: ignore[no-untyped-call]


def summed(tensor: Tensor) -> Tensor:
    """Sum over the processes, with gradient."""
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
    """Whether the flag is set in any process: a decision that all must take alike.  Waits for all of them."""
    if world() == 1:
        return flag
    tensor = torch.tensor(float(flag), device=device)
    group.all_reduce(tensor, group.ReduceOp.MAX)
    return bool(tensor.item())


def wait_for_all() -> None:
    """Wait until every process has come here."""
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
