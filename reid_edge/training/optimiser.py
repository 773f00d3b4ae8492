"""The optimisers of the paper, in torch's fused form, with state that stays where it is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reid_edge.training.config import OptimiserConfig

#: State by parameter's number, then by torch's name of it.
OptimiserState = dict[int, dict[str, Tensor]]


def make_optimiser(parameters: Iterable[nn.Parameter], config: OptimiserConfig, rate: Tensor) -> torch.optim.Optimizer:
    """An optimiser whose rate is a 0-d float32 tensor on the parameters' device: a captured graph sees it change.

    Weight decay is L2 regularisation (added to the gradient) of every parameter, scales and biases included: the
    paper does not say, and torchreid's ``build_optimizer`` makes no exception.  A parameter without gradient (frozen)
    is left alone, decay included.

    All state is made here, as zeros, which is what torch's optimisers begin with: no step allocates, a state is of
    the same form whenever it is saved, and torch's fused SGD, which decides for all parameters at once whether there
    is momentum yet, is right for those whose first step comes after a frozen stage.
    """
    parameters = list(parameters)
    if config.name == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    else:
        optimiser = torch.optim.Adam(
            parameters,
            lr=rate,
            weight_decay=config.weight_decay,
            amsgrad=config.name == "amsgrad",
            fused=True,
            capturable=rate.is_cuda,
        )
    for parameter in parameters:
        optimiser.state[parameter] = _zeros(parameter, config)
    return optimiser


def _zeros(parameter: nn.Parameter, config: OptimiserConfig) -> dict[str, Tensor]:
    names = {
        "sgd": ("momentum_buffer",) if config.momentum else (),
        "adam": ("exp_avg", "exp_avg_sq"),
        "amsgrad": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    }[config.name]
    state = {name: torch.zeros_like(parameter, requires_grad=False) for name in names}
    if config.name != "sgd":
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return state


def optimiser_state(optimiser: torch.optim.Optimizer) -> OptimiserState:
    """The optimiser's tensors themselves, not copies."""
    return {number: dict(optimiser.state[each]) for number, each in enumerate(_parameters(optimiser))}


@torch.no_grad()
def restore_optimiser(optimiser: torch.optim.Optimizer, state: OptimiserState) -> None:
    """Copy saved state into the optimiser's own tensors: a captured graph goes on using them.

    Raises:
        KeyError: The state is of another optimiser or of another network.
    """
    for number, own in optimiser_state(optimiser).items():
        for name, tensor in own.items():
            tensor.copy_(state[number][name])


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for part in optimiser.param_groups for parameter in part["params"]]
