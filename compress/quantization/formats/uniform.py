"""Uniform integer grids, the family of most formats.

Weights are symmetric and per output channel, activations have a zero point and are per tensor;
rounding is half to even, gradients pass straight through (Jacob et al. 2018, "Quantization and
training of neural networks for efficient integer-arithmetic-only inference").

A symmetric per-channel grid commutes with a per-channel factor, so quantizing a convolution before
its batch norm is folded gives the same integers as quantizing it after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from compress.quantization.formats.base import (
    ActivationQuantizer,
    Bounds,
    Codes,
    Pattern,
    ScaledWeights,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DynamicActivations", "IntegerWeights", "StaticActivations"]


@dataclass(frozen=True)
class IntegerWeights(ScaledWeights):
    """Integers from ``-levels`` to ``levels``, stored in a signed type of as many bits or more.

    Attributes:
        can_saturate: whether pairs of products with unsigned 8-bit activations can exceed 16 bits.
    """

    can_saturate: bool = False

    is_integer: ClassVar[bool] = True

    @property
    def levels(self) -> int:
        """The largest integer."""
        return int(2 ** (self.bits - 1) - 1)

    def scale(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        """Step of the grid of each output channel, shape ``(channels,)``.

        The largest weight falls on the last level. With ``avoid_saturation`` the step also keeps
        the sum of any two weights of one sign within 127 levels: x86 without VNNI adds pairs of
        ``uint8 x int8`` products in 16 bits (``vpmaddubsw``), which holds ``255 * 128`` and no
        more. Halving the range altogether, as is usual, also prevents it and gives up a whole bit;
        this step is never coarser than that, and finer wherever a channel has one dominant weight.
        """
        import torch

        rows = weight.detach().movedim(axis, 0).flatten(1)
        step = rows.abs().amax(1) / self.levels
        if avoid_saturation and self.can_saturate:
            count = min(2, rows.shape[1])
            pairs = [part.clamp(min=0).topk(count, dim=1).values.sum(1) for part in (rows, -rows)]
            step = torch.maximum(step, torch.maximum(*pairs) / self.levels)
        return torch.where(step > 0, step, torch.ones_like(step))

    def fake_quantize(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        """``weight`` snapped to its grid."""
        import torch

        scale = self.scale(weight, axis=axis, avoid_saturation=avoid_saturation)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero, axis, -self.levels, self.levels
        )

    def encode(self, weight: Tensor, scale: Tensor) -> Codes:
        """The integers of a snapped weight."""
        import torch

        kind = torch.int8 if self.bits <= 8 else torch.int16
        integers: Codes = (weight / scale).round().to(kind).numpy()
        return integers


@dataclass(frozen=True)
class _UnsignedActivations(ActivationQuantizer):
    """Integers from 0 to ``levels``, of ``bits`` bits, with a zero point."""

    bits: int = 8

    needs_integer_weights: ClassVar[bool] = True

    @property
    def levels(self) -> int:
        """How many steps the grid has, which is its largest integer."""
        return int(2**self.bits - 1)


@dataclass(frozen=True)
class StaticActivations(_UnsignedActivations):
    """A grid over a range that is fixed by calibration data."""

    pattern: ClassVar[Pattern] = Pattern.STATIC

    def grid(self, low: float, high: float) -> tuple[float, int]:
        """Scale and zero point of the grid over ``[low, high]``; zero is on the grid.

        A tensor that was never anything but zero has the grid over ``[0, 1]``: biases are stored in
        steps of input scale times weight scale, and a coarser one would round them away.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / self.levels
        if scale < np.finfo(np.float32).tiny:
            return 1.0 / self.levels, 0
        return scale, int(np.clip(round(-low / scale), 0, self.levels))

    def fake_quantize(self, values: Tensor, bounds: Bounds | None) -> Tensor:
        """``values`` on the grid over ``bounds``; as they are without any."""
        import torch

        if bounds is None:
            return values
        scale, zero_point = self.grid(*bounds)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, self.levels)


@dataclass(frozen=True)
class DynamicActivations(_UnsignedActivations):
    """A grid over the range of each input, which is found at run time."""

    pattern: ClassVar[Pattern] = Pattern.DYNAMIC

    def fake_quantize(self, values: Tensor, bounds: Bounds | None) -> Tensor:
        """Every sample on the grid over its own range."""
        import torch

        if values.dim() == 1:  # one sample by itself
            return self.fake_quantize(values[None], bounds)[0]
        rows = values.detach().flatten(1)
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        scale = (high - low) / self.levels
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero = (-low / scale).round().clamp(0, self.levels).to(torch.int32)
        return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, 0, self.levels)
