"""What changes in the course of a run, as pure functions of the step, so that resuming needs no stored schedule."""

from __future__ import annotations

import math

from reid_edge.training.config import LossConfig, ScheduleConfig

#: Learning rate of the first step of a warm-up, as a part of the highest.
WARMUP_START = 0.01


def rate(schedule: ScheduleConfig, base: float, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step, counted from 0.

    Warm-up rises step by step.  ``step`` falls at the start of an epoch: the milestones count from the beginning of
    the run, warm-up included.  ``cosine`` falls step by step from the end of the warm-up and would be 0 at the step
    after the last; Loshchilov and Hutter, ICLR 2017, equation 5, without restarts.

    Args:
        schedule: How it goes.
        base: The highest rate.
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


def triplet_weight(loss: LossConfig, epoch: int) -> float:
    """Weight of the triplet loss in an epoch, counted from 0."""
    return loss.triplet if epoch >= loss.triplet_start else 0.0


def frozen(schedule: ScheduleConfig, step: int, steps_per_epoch: int) -> bool:
    """Whether only the classifier trains in this step."""
    return step < schedule.frozen * steps_per_epoch
