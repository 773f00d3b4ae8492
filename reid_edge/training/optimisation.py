"""Learning-rate schedule, the optimisers of the paper, and a moving average of the weights: how a step changes weights.

The schedule is a pure function of the step, so that resuming needs no stored schedule.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reid_edge.training.settings import LossSettings, OptimiserSettings, ScheduleSettings

#: Learning rate of the first step of a warm-up, as a part of the highest.
WARMUP_START = 0.01
#: State by parameter's number, then by torch's name of it.
OptimiserState = dict[int, dict[str, Tensor]]


def rate(schedule: ScheduleSettings, base: float, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Warm-up rises step by step.  ``step`` falls at the start of an epoch: the milestones count from the beginning of
    the run, warm-up included.  ``cosine`` falls step by step from the end of the warm-up and would be 0 at the step
    after the last; Loshchilov and Hutter, ICLR 2017, equation 5, without restarts.

    Args:
        schedule: Kind of schedule, milestones and warm-up.
        base: Highest rate.
        step: Optimisation steps already done.
        steps_per_epoch: Whole batches of an epoch.
    """
    warmup = schedule.warmup * steps_per_epoch
    if step < warmup:
        return base * (WARMUP_START + (1 - WARMUP_START) * step / warmup)
    if schedule.kind == "cosine":
        part = (step - warmup) / max(schedule.epochs * steps_per_epoch - warmup, 1)
        return base * 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))
    epoch = step // steps_per_epoch
    return base * schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)


def triplet_weight(loss: LossSettings, epoch: int) -> float:
    """Return the weight of the triplet loss in an epoch, counted from 0."""
    return loss.triplet if epoch >= loss.triplet_start else 0.0


def frozen(schedule: ScheduleSettings, step: int, steps_per_epoch: int) -> bool:
    """Return True for a step in which only the classifier trains."""
    return step < schedule.frozen * steps_per_epoch


def make_optimiser(
    parameters: Iterable[nn.Parameter], settings: OptimiserSettings, rate: Tensor
) -> torch.optim.Optimizer:
    """Make an optimiser whose rate is a 0-d float32 tensor on the parameters' device: a captured graph sees it change.

    Weight decay is L2 regularisation (added to the gradient) of every parameter, scales and biases included: the
    paper does not say, and torchreid's ``build_optimizer`` makes no exception.  A parameter without gradient (frozen)
    is left alone, decay included.

    All state is made here as zeros, with which torch's optimisers begin.  So no step allocates, and a saved state
    always has the same form.  Torch's fused SGD decides for all parameters at once whether there is momentum yet;
    zeros make this right also for parameters whose first step comes after a frozen stage.
    """
    parameters = list(parameters)
    if settings.name == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    else:
        optimiser = torch.optim.Adam(
            parameters,
            lr=rate,
            weight_decay=settings.weight_decay,
            amsgrad=settings.name == "amsgrad",
            fused=True,
            capturable=rate.is_cuda,
        )
    for parameter in parameters:
        optimiser.state[parameter] = _zeros(parameter, settings)
    return optimiser


def _zeros(parameter: nn.Parameter, settings: OptimiserSettings) -> dict[str, Tensor]:
    names = {
        "sgd": ("momentum_buffer",) if settings.momentum else (),
        "adam": ("exp_avg", "exp_avg_sq"),
        "amsgrad": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    }[settings.name]
    state = {name: torch.zeros_like(parameter, requires_grad=False) for name in names}
    if settings.name != "sgd":
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return state


def optimiser_state(optimiser: torch.optim.Optimizer) -> OptimiserState:
    """Return the optimiser's tensors themselves, not copies."""
    return {number: dict(optimiser.state[each]) for number, each in enumerate(_parameters(optimiser))}


@torch.no_grad()
def restore_optimiser(optimiser: torch.optim.Optimizer, state: OptimiserState) -> None:
    """Copy saved state into the optimiser's own tensors: a captured graph goes on using them.

    Raises:
        KeyError: The state belongs to another optimiser or network.
    """
    for number, own in optimiser_state(optimiser).items():
        for name, tensor in own.items():
            tensor.copy_(state[number][name])


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for part in optimiser.param_groups for parameter in part["params"]]


class ModelEma:
    """Exponential moving average of a module's weights and floating-point buffers; integer buffers are copied.

    torch's ``swa_utils.AveragedModel`` reads the number of updates from the device, which a captured graph may not do;
    this class takes the weight of the new value as an argument.

    Args:
        module: Module to average; the average begins as a copy of it.
        decay: Decay of an update: average ← decay × average + (1 − decay) × module.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        self._averaged = [(own, other) for own, other in pairs if own.is_floating_point()]
        self._copied = [(own, other) for own, other in pairs if not own.is_floating_point()]

    def new_weight(self, step: int) -> float:
        """Return the weight of the new value after a step, counted from 0.

        It is 1 − min(decay, (1 + n) / (10 + n)) after n updates, as in TensorFlow's ExponentialMovingAverage: what
        was before the first soon loses its influence.
        """
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, new_weight: Tensor) -> None:
        """Average the module's values in, with a weight that is a 0-d tensor on the module's device."""
        own, other = map(list, zip(*self._averaged, strict=True))
        change = torch._foreach_sub(other, own)
        torch._foreach_mul_(change, new_weight)
        torch._foreach_add_(own, change)
        if self._copied:
            own, other = map(list, zip(*self._copied, strict=True))
            torch._foreach_copy_(own, other)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(each.detach() for each in module.parameters()), *module.buffers()]
