"""How many bytes a layer's weights take in a file, and formats as they are written in one word."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from torch import nn

from compress.config.clauses import clauses
from compress.quantization.fakequant import weight_axes
from compress.quantization.formats import default_activations
from compress.quantization.formats.base import ScaledWeights
from compress.quantization.numerics import FLOAT32, LayerFormat

__all__ = ["format_named", "format_words", "saved_bytes", "stored_bytes"]

_SCALE_BYTES = 4


def stored_bytes(layer: nn.Module, format: LayerFormat) -> int:
    """What a file holds of the weights of one layer in a format, its scales included.

    Integers of fewer than 8 bits take a byte each. What the graph itself takes is not in it.
    """
    quantizer, total = format.weight_quantizer, 0
    for name, axis in weight_axes(layer).items():
        weight = layer.get_parameter(name)
        total += weight.numel() * max(1, quantizer.bits // 8)
        if isinstance(quantizer, ScaledWeights):
            total += _SCALE_BYTES * weight.shape[axis]
    return total


def saved_bytes(module: nn.Module, formats: Mapping[str, LayerFormat]) -> int:
    """What formats save of a file in float32.

    Args:
        module: whose weights are stored.
        formats: of its layers, by path.
    """
    layers = {name: module.get_submodule(name) for name in formats}
    return sum(
        stored_bytes(layers[name], FLOAT32) - stored_bytes(layers[name], format)
        for name, format in formats.items()
    )


def format_named(text: str) -> LayerFormat:
    """The format that ``int8/int8`` or ``float16`` names: of weights, then of activations.

    Raises:
        ValueError: there is none of such a name, or the two do not go together.
    """
    weights, _, activations = text.partition("/")
    given = activations or default_activations(weights) or "float32"
    try:
        return LayerFormat.model_validate({"weights": weights, "activations": given})
    except ValidationError as error:
        place, clause = clauses(error)[0]
        what = f"{place[0]}: " if place else ""
        raise ValueError(
            f"{what}{clause}; write weights/activations, as in int8/int8 or int4/float32"
        ) from error


def format_words(format: LayerFormat) -> str:
    """A format in one word, as :func:`format_named` reads it."""
    return f"{format.weights}/{format.activations}"
