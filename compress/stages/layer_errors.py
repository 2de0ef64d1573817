"""The error that each layer alone makes in the outputs, on a part of the validation split."""

from __future__ import annotations

from collections.abc import Mapping

from compress.candidate import Candidate
from compress.quantization.numerics import LayerFormat
from compress.quantization.sensitivity import output_errors
from compress.stage import Context, formats_of, ranges_of
from compress.stages.fit import supervision_of
from compress.training.data import spread

__all__ = ["changed_formats", "errors_of_layers"]

_SAMPLES = 256


def changed_formats(incoming: Candidate, after: Candidate) -> dict[str, LayerFormat]:
    """The formats of the layers that have another one than before."""
    before, formats = formats_of(incoming), formats_of(after)
    return {name: format for name, format in formats.items() if format != before.get(name)}


def errors_of_layers(
    candidate: Candidate, formats: Mapping[str, LayerFormat], context: Context
) -> dict[str, float]:
    """How far the outputs move where one layer at a time has its format; see ``output_errors``.

    Layers in float32 are left out.
    """
    module = candidate.module
    ranges = ranges_of(module, formats, context.task)
    batch = spread(context.task.validation, _SAMPLES).inputs
    class_scores = supervision_of(candidate, context).class_scores
    return output_errors(module, formats, ranges, [batch], class_scores)
