"""float8: weights of 8 bits with 4 of exponent and 3 of mantissa (E4M3FN), and float32 arithmetic.

The type of Micikevicius et al. 2022, "FP8 formats for deep learning", with a scale per output
channel under which its largest weight is the largest number of the type. Where int8 has the same
step for all weights of a channel, here the step is a share of each weight: small weights beside
large ones are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.quantization.formats.base import Codes, Format, ScaledWeights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT"]

_LARGEST = 448.0


@dataclass(frozen=True)
class _Float8Weights(ScaledWeights):
    def scale(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        import torch

        scale = weight.detach().movedim(axis, 0).flatten(1).abs().amax(1) / _LARGEST
        return torch.where(scale > 0, scale, torch.ones_like(scale))

    def fake_quantize(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        import torch

        shape = [1] * weight.dim()
        shape[axis] = -1
        scale = self.scale(weight, axis=axis).reshape(shape)
        # Division may end a rounding above the largest number, which would become NaN.
        scaled = (weight.detach() / scale).clamp(-_LARGEST, _LARGEST)
        rounded = scaled.to(torch.float8_e4m3fn).float() * scale
        return rounded + (weight - weight.detach())  # exact, and the gradient is the weight's

    def encode(self, weight: Tensor, scale: Tensor) -> Codes:
        import torch

        bits: Codes = (weight / scale).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        return bits


FORMAT = Format(
    name="float8",
    weights=_Float8Weights(bits=8, onnx_type="FLOAT8E4M3FN"),
    about_weights="8 bits with an exponent (E4M3FN; Micikevicius et al. 2022), computed in float32",
)
