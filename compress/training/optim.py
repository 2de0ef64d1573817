"""Optimization: optimizer, learning-rate schedule, clipping, averaging and early stopping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

__all__ = ["Optimization", "Schedule", "make_optimizer", "rate"]

Schedule = Literal["cosine", "constant", "one-cycle"]

# Of one-cycle: how far below its peak it starts, and how far below its start it ends.
_START, _END = 1 / 25, 1e-4


@dataclass(frozen=True)
class Optimization:
    """How a module is optimized.

    Args:
        epochs: passes over the data, at most.
        learning_rate: the highest one; schedules are shares of it.
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum 0.9.
        weight_decay: of weights; norms and biases are not decayed.
        schedule: see :func:`rate`.
        warmup: share of all steps in which the learning rate rises.
        clip_norm: the largest norm of the gradient of one step.
        ema: decay of an exponential moving average of the weights, which then are the result.
        patience: stop after so many epochs without a lower validation loss (there must be one), and
            take the weights of the epoch where it was lowest.
    """

    epochs: int
    learning_rate: float
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-2
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    clip_norm: float | None = 1.0
    ema: float | None = None
    patience: int | None = None


def make_optimizer(
    parameters: Sequence[nn.Parameter], optimization: Optimization
) -> torch.optim.Optimizer:
    """The optimizer for some parameters, at the highest learning rate.

    Args:
        parameters: those with two axes or more are decayed.
        optimization: which optimizer, its learning rate and weight decay.
    """
    # Norms and biases are not decayed: decay would pull their scale, not the function, to zero.
    groups = [
        {
            "params": [p for p in parameters if p.dim() > 1],
            "weight_decay": optimization.weight_decay,
        },
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if optimization.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optimization.learning_rate, momentum=0.9, nesterov=True)
    # Fused: of a net with a large table of words the plain one takes a third of the whole step.
    return torch.optim.AdamW(groups, lr=optimization.learning_rate, fused=True)


def rate(step: int, steps: int, schedule: Schedule, warmup: float) -> float:
    """The learning rate of a step, as a share of the highest one.

    ``constant`` and ``cosine`` rise linearly over the first ``warmup`` of the steps, and then stay
    or fall to 0 along half a cosine (Loshchilov and Hutter 2017, "SGDR"). ``one-cycle`` rises from
    1/25 and falls to 1/250000, both along half a cosine (Smith and Topin 2018,
    "Super-convergence"); momentum stays as it is.

    Args:
        step: counted from 0.
        steps: of the whole training.
        schedule: ``cosine``, ``constant`` or ``one-cycle``.
        warmup: share of all steps in which the learning rate rises.
    """
    if schedule == "one-cycle":
        top, last = warmup * steps - 1, steps - 1
        if step <= top:
            return _glide(_START, 1.0, step / top if top > 0 else 1.0)
        return _glide(1.0, _START * _END, (step - top) / (last - top)) if steps > 1 else 1.0
    warm = max(1, round(steps * warmup))
    if step < warm:
        return (step + 1) / warm
    if schedule == "constant":
        return 1.0
    return _glide(1.0, 0.0, (step - warm) / max(1, steps - warm))


def _glide(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
