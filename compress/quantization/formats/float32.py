"""float32: nothing is rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compress.quantization.formats.base import (
    ActivationQuantizer,
    Bounds,
    Format,
    Pattern,
    WeightQuantizer,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT"]


@dataclass(frozen=True)
class _Float32Weights(WeightQuantizer):
    def fake_quantize(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        return weight


@dataclass(frozen=True)
class _Float32Activations(ActivationQuantizer):
    pattern: ClassVar[Pattern] = Pattern.FLOAT32

    def fake_quantize(self, values: Tensor, bounds: Bounds | None) -> Tensor:
        return values


FORMAT = Format(
    name="float32",
    about_weights="as they are",
    about_activations="as they are",
    weights=_Float32Weights(bits=32, onnx_type="FLOAT"),
    activations=_Float32Activations(onnx_type="FLOAT", arithmetic="float32"),
)
