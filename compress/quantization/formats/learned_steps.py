"""Integers whose step is learned (LSQ).

Esser et al. 2020, "Learned step size quantization".

As in the paper, weights beyond the last level are clipped and get no gradient, the gradient of the
step is that of the rounded weight, and it is scaled so that weights and step change at one pace.
Other than in the paper each output channel has a step, and what is learned is the logarithm of its
share of the step that puts the largest weight on the last level
(:class:`compress.quantization.clips.LearnedClips`): it is positive, and no coarser than that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compress.quantization.formats.uniform import IntegerWeights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LearnedSteps"]


@dataclass(frozen=True)
class LearnedSteps(IntegerWeights):
    """The integers of :class:`IntegerWeights`; training learns the step of each channel."""

    learns_clip: ClassVar[bool] = True

    @classmethod
    def of(cls, fixed: IntegerWeights) -> LearnedSteps:
        """The same integers with learned steps."""
        return cls(bits=fixed.bits, onnx_type=fixed.onnx_type, can_saturate=fixed.can_saturate)

    def initial_clip(self, weight: Tensor, *, axis: int) -> Tensor:
        """That of the paper's first step, 2 <|w|> / sqrt(levels), or 1 where that is wider."""
        import torch

        rows = weight.detach().movedim(axis, 0).flatten(1).abs()
        clip = 2 * rows.mean(1) * self.levels**0.5 / rows.amax(1)
        return torch.where(clip < 1, clip, torch.ones_like(clip))

    def fake_quantize_learned(self, weight: Tensor, clip: Tensor, *, axis: int) -> Tensor:
        """``weight`` on the grid of the clip, with LSQ's gradients of both."""
        import torch

        shape = [1] * weight.dim()
        shape[axis] = -1
        largest = weight.detach().movedim(axis, 0).flatten(1).abs().amax(1).reshape(shape)
        limit = clip.reshape(shape) * largest
        values = weight.detach().clamp(-limit.detach(), limit.detach())
        inside = values == weight
        rounded = self.fake_quantize(values, axis=axis)
        step = torch.where(largest > 0, limit / self.levels, 1.0)
        fixed = step.detach()
        # Inside the grid the integer less the weight in steps, beyond it the last level.
        of_step = (rounded - inside * weight.detach()) / fixed
        # g of the paper's section 2.2, for the weights of a channel. Over the square of the step:
        # its logarithm changes by the share by which the paper's step would.
        pace = (self.levels * weight.numel() / clip.numel()) ** -0.5 / fixed.square()
        passed = torch.where(inside, weight - weight.detach(), 0.0)
        learned: Tensor = rounded + passed + pace * of_step * (step - fixed)
        return learned
