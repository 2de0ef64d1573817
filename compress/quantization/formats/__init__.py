"""Number formats, a file each: what a recipe may name, how it rounds, and how ONNX holds it.

To add one, write a file with a :class:`~compress.quantization.formats.base.Format` and put it on
the list here. YAML, its JSON Schema, messages, simulation and lowering follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from compress.quantization.formats import dynamic, few_bits, float8, float16, float32, int8, int16
from compress.quantization.formats.base import ActivationQuantizer, Format, WeightQuantizer

__all__ = [
    "ACTIVATIONS",
    "FORMATS",
    "WEIGHTS",
    "about_activations",
    "about_weights",
    "default_activations",
    "why_not_together",
]

#: All formats; recipes and their schema name them in this order.
FORMATS: tuple[Format, ...] = (
    float32.FORMAT,
    float16.FORMAT,
    int8.FORMAT,
    few_bits.INT4,
    few_bits.INT2,
    float8.FORMAT,
    int16.FORMAT,
    dynamic.FORMAT,
)

#: The formats of weights by name.
WEIGHTS: dict[str, WeightQuantizer] = {f.name: f.weights for f in FORMATS if f.weights}

#: The formats of activations by name.
ACTIVATIONS: dict[str, ActivationQuantizer] = {
    f.name: f.activations for f in FORMATS if f.activations
}


def about_weights() -> list[str]:
    """What weights in each format are, in the order of ``WEIGHTS``."""
    return [format.about_weights for format in FORMATS if format.weights]


def about_activations() -> list[str]:
    """What activations in each format are, in the order of ``ACTIVATIONS``."""
    return [format.about_activations for format in FORMATS if format.activations]


def why_not_together(weights: str, activations: str) -> str | None:
    """Why a layer cannot have these formats for its weights and its activations; ``None`` if so.

    Args:
        weights: a name in ``WEIGHTS``.
        activations: a name in ``ACTIVATIONS``.
    """
    got = f"got weights: {weights}, activations: {activations}"
    for name in (format.name for format in FORMATS if format.is_paired):
        if (weights == name) != (activations == name):
            return f"{name} is for weights and activations together; {got}"
    if ACTIVATIONS[activations].needs_integer_weights and not WEIGHTS[weights].is_integer:
        integers = [name for name, quantizer in WEIGHTS.items() if quantizer.is_integer]
        return (
            f"activations: {activations} needs integer weights ({_either(integers)}); "
            f"got weights: {weights}"
        )
    return None


def default_activations(weights: object) -> str | None:
    """The format of activations that weights have where none is named.

    ``None`` for integers that leave it to the stage, and for what is no name of a format.
    """
    for format in FORMATS:
        if format.weights and format.name == weights:
            own = None if format.weights.is_integer else _beside_floats(format)
            return format.default_activations or own
    return None


def _beside_floats(format: Format) -> str:
    return format.name if format.activations else "float32"


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
