"""What a structure is: a small net, its input, and whether pruning has to be able to cut it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Structure"]

_SHIFT = 0.2
_GAIN = 2.0


@dataclass(frozen=True)
class Structure:
    """A small net after a public design.

    Args:
        name: of the structure, unique.
        build: makes the net with fresh weights, drawn from torch's global generator.
        shape: of one input.
        must_cut: whether pruning by channels has to be able to cut the hidden widths. If not, the
            net may stay uncut, but what comes back still has to be right.
        reason: why the net may stay uncut; empty if it must be cut.
        tokens: number of tokens, if inputs are tokens rather than real numbers.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    must_cut: bool
    reason: str = ""
    tokens: int = 0

    def make(self, seed: int = 0) -> nn.Module:
        """The net in eval mode, with weights and statistics as if it had been trained.

        Fresh norms, scales and biases are ones and zeros, which hide mistakes; here they differ
        from channel to channel. Weights are enlarged, and batch norms have nearly the statistics of
        their inputs: otherwise some outputs would hardly depend on the input.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            net = self.build()
            for parameter in net.parameters():
                _vary(parameter)
            norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
            if norms:
                momenta = [norm.momentum for norm in norms]
                for norm in norms:
                    norm.momentum = 1.0
                net.train()(self.example(16, seed))
                for norm, momentum in zip(norms, momenta, strict=True):
                    norm.momentum = momentum
                    _vary_statistics(norm)
        return net.eval()

    def example(self, samples: int = 4, seed: int = 1) -> Tensor:
        """A batch of inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(self.tokens, (samples, *self.shape), generator=generator)
        return torch.randn(samples, *self.shape, generator=generator)


def _vary(parameter: Tensor) -> None:
    """Enlarge a drawn matrix or kernel, and draw a parameter whose elements are all alike."""
    first = parameter.flatten()[0].clone()
    if parameter.numel() == 1:
        return
    if not bool((parameter == first).all()):
        if parameter.dim() > 1:
            parameter.mul_(_GAIN)
    elif first == 0:
        parameter.normal_(std=_SHIFT)
    else:
        parameter.uniform_(0.5, 1.5).mul_(first)


def _vary_statistics(norm: _BatchNorm) -> None:
    mean, variance = norm.running_mean, norm.running_var
    if mean is not None and variance is not None:
        mean.add_(_SHIFT * torch.randn_like(mean) * variance.sqrt())
        variance.mul_(0.5 + torch.rand_like(variance))
