"""Copies of weights during training: their moving average, and those of the best epoch so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from compress.modules.tensors import copied, put_back

__all__ = ["BestWeights", "MovingAverage"]


class MovingAverage:
    """An exponential moving average (EMA) of weights (Polyak and Juditsky 1992).

    Running means and variances of norms are averaged in the same way, so that they fit the averaged
    weights; integers, such as a norm's count of batches, are copied. In the first steps the decay
    is lower, ``(1 + steps) / (10 + steps)``: the average forgets the weights that it began with,
    and is of use in short trainings too.

    Args:
        live: gives the weights as they are now, by name; not copies.
        decay: of the average in later steps, between 0 and 1.
    """

    def __init__(self, live: Callable[[], Mapping[str, Tensor]], decay: float) -> None:
        self._live, self._decay = live, decay
        self.tensors = copied(live())

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average with the weights after ``steps`` steps."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        for name, live in self._live().items():
            average = self.tensors[name]
            if average.is_floating_point():
                average.lerp_(live, 1 - decay)
            else:
                average.copy_(live)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the averaged weights are in the place of the live ones."""
        live = self._live()
        kept = copied(live)
        put_back(self.tensors, live)
        try:
            yield
        finally:
            put_back(kept, live)


class BestWeights:
    """The weights of the epoch with the lowest validation loss, for early stopping.

    Args:
        patience: epochs without a lower validation loss after which to stop.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.loss, self.epoch = math.inf, -1
        self.tensors: dict[str, Tensor] = {}

    def update(self, epoch: int, loss: float, live: Mapping[str, Tensor]) -> None:
        """Copy the weights if their validation loss is the lowest so far; NaN is not lower.

        Args:
            epoch: counted from 0.
            loss: on validation data after that epoch.
            live: the weights after that epoch, by name.
        """
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            self.tensors = copied(live)

    def should_stop(self, epoch: int) -> bool:
        """Whether the best epoch lies ``patience`` epochs before ``epoch``, or more."""
        return epoch - self.epoch >= self._patience

    def restore(self, loss: float, epoch: int, tensors: Mapping[str, Tensor]) -> None:
        """Take over the state that a checkpoint has."""
        self.loss, self.epoch, self.tensors = loss, epoch, dict(tensors)
