"""What a training keeps beside the weights that it moves: their average, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.modules.tensors import copied, put_back, tensors_of

__all__ = ["Average", "Best"]


class Average:
    """An exponential moving average of a module's weights (Polyak and Juditsky 1992).

    Running means and variances of norms are averaged in the same way, so that they fit the averaged
    weights; whole numbers, such as a norm's count of batches, are copied. In the first steps the
    decay is lower, ``(1 + steps) / (10 + steps)``: the average forgets the weights that it began
    with, and is of use in short trainings too.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.tensors = copied(tensors_of(module))

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after ``steps`` steps."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        for name, live in tensors_of(self._module).items():
            mine = self.tensors[name]
            if mine.is_floating_point():
                mine.lerp_(live, 1 - decay)
            else:
                mine.copy_(live)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the module has the averaged weights."""
        live = tensors_of(self._module)
        kept = copied(live)
        put_back(self.tensors, live)
        try:
            yield
        finally:
            put_back(kept, live)


class Best:
    """The weights of the epoch with the lowest validation loss, and when to stop waiting."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.loss, self.epoch = math.inf, -1
        self.tensors: dict[str, Tensor] = {}

    def see(self, epoch: int, loss: float, module: nn.Module) -> None:
        """Look at the module after ``epoch``, counted from 0; what is not a number is no better."""
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            self.tensors = copied(tensors_of(module))

    def is_late(self, epoch: int) -> bool:
        """Whether there was no better epoch for too long."""
        return epoch - self.epoch >= self._patience

    def restore(self, loss: float, epoch: int, tensors: Mapping[str, Tensor]) -> None:
        """Be as another was."""
        self.loss, self.epoch, self.tensors = loss, epoch, dict(tensors)
