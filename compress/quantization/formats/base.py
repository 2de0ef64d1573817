"""What a number format is: how weights and activations are rounded in it, and how ONNX holds it.

Plain data and arithmetic. Formats load without torch and ONNX, since recipes and records name them
where neither is installed: torch is imported in the functions that compute with tensors, and what a
graph is made of is named in words (:class:`Pattern`, names of ONNX types and operators) that a
backend interprets. A format that fits a pattern needs nothing new in a backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ActivationQuantizer",
    "Bounds",
    "Codes",
    "Format",
    "Pattern",
    "ScaledWeights",
    "Tolerance",
    "WeightQuantizer",
]

#: The lowest and the highest value of an activation.
Bounds = tuple[float, float]

#: Numbers as a file stores them.
Codes = np.ndarray[Any, np.dtype[Any]]


class Pattern(Enum):
    """How a graph computes with activations."""

    FLOAT32 = "as they are"
    CAST = "operators run in the type itself, between Cast operators"
    STATIC = "QuantizeLinear and DequantizeLinear, with ranges from calibration data"
    DYNAMIC = "DynamicQuantizeLinear: the range of each input is found at run time"


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its simulation, which does not round all that the file rounds.

    Attributes:
        least: noise that is always allowed, as a share of the variance of the outputs (1 - R²).
        most: the most that ten times the noise of the simulation may relax it to.
        step: of the format's grid, as a share of the largest output.
    """

    least: float
    most: float
    step: float


@dataclass(frozen=True)
class WeightQuantizer(ABC):
    """How weights are rounded and stored.

    Attributes:
        bits: of one weight.
        onnx_type: the ONNX type of what is stored, such as ``INT8``.
    """

    bits: int
    onnx_type: str

    #: Whether weights are integers, which integer kernels can multiply.
    is_integer: ClassVar[bool] = False
    #: Whether training learns how far weights are clipped; a format that declares it has
    #: :meth:`initial_clip` and :meth:`fake_quantize_learned`.
    learns_clip: ClassVar[bool] = False

    @abstractmethod
    def fake_quantize(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        """``weight`` rounded, same shape; the gradient passes straight through.

        Args:
            weight: float32.
            axis: the axis that counts output channels.
            avoid_saturation: as in ``Lowering``.
        """

    def initial_clip(self, weight: Tensor, *, axis: int) -> Tensor:
        """Where learning begins: of each channel the share of its largest weight, ``(channels,)``.

        Args:
            weight: float32.
            axis: the axis that counts output channels.
        """
        raise NotImplementedError(f"{type(self).__name__} has no clip that could be learned.")

    def fake_quantize_learned(self, weight: Tensor, clip: Tensor, *, axis: int) -> Tensor:
        """``weight`` clipped and rounded, same shape, with the gradients of weight and clip.

        The values are those of :meth:`fake_quantize` for the clipped weight.

        Args:
            weight: float32.
            clip: of each output channel, the share of its largest weight that is its range:
                ``(channels,)``, above 0, at most 1.
            axis: the axis that counts output channels.
        """
        raise NotImplementedError(f"{type(self).__name__} has no clip that could be learned.")


@dataclass(frozen=True)
class ScaledWeights(WeightQuantizer):
    """Weights that are stored in another type, to be multiplied with a scale per output channel."""

    @abstractmethod
    def scale(self, weight: Tensor, *, axis: int, avoid_saturation: bool = False) -> Tensor:
        """What the stored numbers of each output channel are multiplied with, ``(channels,)``."""

    @abstractmethod
    def encode(self, weight: Tensor, scale: Tensor) -> Codes:
        """What is stored of a fake-quantized ``weight``: integers, or the bits of floats as uint8.

        Args:
            weight: as :meth:`fake_quantize` gives it.
            scale: as :meth:`scale` gives it, in a shape that multiplies ``weight``.
        """


@dataclass(frozen=True)
class ActivationQuantizer(ABC):
    """How the inputs of layers are rounded.

    Attributes:
        onnx_type: the ONNX type that they are rounded to.
        arithmetic: what messages call computing in it, such as ``int8``.
        tolerance: of a file in this format; ``None`` for what is held to be float32.
        has_int8_kernels: whether products run on int8 kernels.
        kernels: the ONNX operators with layers' weights that are computed in this format; ``None``
            for all. Others keep their weights' format and compute in float32.
        without_kernel: for an operator beside those, why, as the end of a sentence.
        note: what the reader of a record should know of every layer in this format.
        when_recurrent: the name of the format that a recurrent layer computes in instead; ``None``
            where it keeps no format but that of its weights. Only of static ones.
    """

    onnx_type: str
    arithmetic: str
    tolerance: Tolerance | None = None
    has_int8_kernels: bool = False
    kernels: frozenset[str] | None = None
    without_kernel: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    note: str | None = None
    when_recurrent: str | None = None

    pattern: ClassVar[Pattern]
    #: Whether layers' weights have to be integers.
    needs_integer_weights: ClassVar[bool] = False

    @abstractmethod
    def fake_quantize(self, values: Tensor, bounds: Bounds | None) -> Tensor:
        """``values`` rounded, same shape; the gradient passes straight through.

        Args:
            values: float32, samples on axis 0.
            bounds: the range from calibration, of a static format.
        """


@dataclass(frozen=True)
class Format:
    """One number format under the name that recipes give it.

    Attributes:
        name: in recipes, records and messages.
        weights: how weights are rounded in it; ``None`` if it is for activations alone.
        activations: how activations are; ``None`` if it is for weights alone.
        is_paired: whether weights and activations have it together or not at all.
        default_activations: the format of the activations where a recipe gives layers these weights
            and no more. ``None`` leaves integers to the stage's own default; others have themselves
            for activations, or float32 where they are for weights alone.
        about_weights: what weights in it are, as a clause for the reference.
        about_activations: what activations in it are, likewise.
    """

    name: str
    weights: WeightQuantizer | None = None
    activations: ActivationQuantizer | None = None
    is_paired: bool = False
    default_activations: str | None = None
    about_weights: str = ""
    about_activations: str = ""
