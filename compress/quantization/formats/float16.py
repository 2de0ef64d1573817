"""float16: half the bits, for weights and arithmetic together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compress.quantization.formats.base import (
    ActivationQuantizer,
    Bounds,
    Format,
    Pattern,
    Tolerance,
    WeightQuantizer,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT"]


@dataclass(frozen=True)
class _Float16Weights(WeightQuantizer):
    def fake_quantize(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        return _rounded(weight)


@dataclass(frozen=True)
class _Float16Activations(ActivationQuantizer):
    pattern: ClassVar[Pattern] = Pattern.CAST

    def fake_quantize(self, values: Tensor, bounds: Bounds | None) -> Tensor:
        return _rounded(values)


def _rounded(values: Tensor) -> Tensor:
    rounded = values.detach().half().float()
    return values + (rounded - values).detach()


FORMAT = Format(
    name="float16",
    about_weights="16 bits, half of the file; activations are float16, too",
    about_activations="16 bits, computed as they are; weights are float16, too",
    weights=_Float16Weights(bits=16, onnx_type="FLOAT16"),
    activations=_Float16Activations(
        onnx_type="FLOAT16",
        arithmetic="float16",
        tolerance=Tolerance(least=1e-3, most=5e-3, step=2.0**-11),
    ),
    is_paired=True,
)
