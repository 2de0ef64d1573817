"""Quantize within a size of the file: each layer gets the format that an integer program gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from compress.candidate import Candidate
from compress.config.fields import Number
from compress.config.selectors import named
from compress.config.settings import Settings
from compress.errors import AlreadySo
from compress.quantization.numerics import LayerFormat
from compress.quantization.stored import format_named, format_words, stored_bytes
from compress.stage import Context, formats_of
from compress.stages.format_choice import ChosenFormats, FormatChoice
from compress.stages.layer_errors import changed_formats, errors_of_layers

__all__ = ["SizeBudget", "quantize_within"]

_LARGEST_BUDGET = 1e12
_MOST_FORMATS = 8

#: The candidate in which layers have formats, by layer.
Declare = Callable[[Mapping[str, LayerFormat]], Candidate]


class SizeBudget(Settings):
    """The size that the file may have, and what layers may be stored in to keep it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact_kib: Number = Field(gt=0, le=_LARGEST_BUDGET)
    """The largest file in KiB, external data included."""
    formats: tuple[Annotated[str, Field(max_length=40)], ...] = Field(
        default=(), max_length=_MOST_FORMATS
    )
    """Formats beside the stage's own that a layer may get, as ``weights/activations``, such as
    ``float16/float16`` or ``int8/float32``. Each layer may also stay what it is."""

    @field_validator("formats")
    @classmethod
    def _are_formats(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for text in formats:
            format_named(text)
        return formats

    def layer_formats(self, own: LayerFormat) -> dict[str, LayerFormat]:
        """By name what a layer may get: the stage's own format, and those named here."""
        found = {format_words(own): own}
        for text in self.formats:
            named_here = format_named(text)
            learns = own.learn_steps and named_here.weight_quantizer.is_integer
            made = named_here.model_copy(
                update={"calibration": own.calibration, "learn_steps": learns}
            )
            found.setdefault(format_words(made), made)
        return found


def quantize_within(
    budget: SizeBudget,
    own: LayerFormat,
    incoming: Candidate,
    context: Context,
    declare: Declare,
) -> Candidate:
    """Quantize so that the file keeps its size and the outputs move least; a note says what was.

    Args:
        budget: what the file may have.
        own: the format of the stage.
        incoming: what comes in.
        context: of the stage; its evaluator lowers a few choices, one for each format at least.
        declare: the candidate in which each of the selected layers has a format.

    Raises:
        AlreadySo: the file that comes in is small enough.
        StageError: no choice of formats is small enough.
    """
    most, where = budget.artifact_kib * 1024, f"quantize: budget artifact_kib {_kib(budget)}"

    def file_bytes(candidate: Candidate) -> int:
        return context.evaluator.measure(candidate, ()).artifact_bytes

    whole = file_bytes(incoming)
    if whole <= most:
        raise AlreadySo(f"{where}: the file that comes in has {whole / 1024:.4g} KiB.")
    before = formats_of(incoming)
    formats = budget.layer_formats(own)
    own_layers = {
        name: changed_formats(incoming, declare(dict.fromkeys(before, format)))
        for name, format in formats.items()
    }
    errors = {n: errors_of_layers(incoming, each, context) for n, each in own_layers.items()}
    saved = {
        name: {layer: _saved(incoming, layer, before[layer], each[layer]) for layer in errors[name]}
        for name, each in own_layers.items()
    }
    stay = errors_of_layers(incoming, before, context)

    def declared(chosen: Mapping[str, str]) -> Candidate:
        return declare({layer: formats[name] for layer, name in chosen.items()})

    choice = FormatChoice(errors, stay, saved, lambda one: file_bytes(declared(one)), where)
    found = choice.within(most)
    return replace(declared(found.formats), notes=(_note(where, found, errors),))


def _kib(budget: SizeBudget) -> str:
    return f"{budget.artifact_kib:g}"


def _saved(candidate: Candidate, layer: str, before: LayerFormat, after: LayerFormat) -> float:
    module = candidate.module.get_submodule(layer)
    return stored_bytes(module, before) - stored_bytes(module, after)


def _note(where: str, found: ChosenFormats, errors: Mapping[str, Mapping[str, float]]) -> str:
    layers = list(dict.fromkeys(name for own in errors.values() for name in own))
    said = []
    for format in dict.fromkeys(found.formats.values()):
        having = [name for name, own in found.formats.items() if own == format]
        said.append(f"{len(having)} of {len(layers)} layers get {format} ({named(having)})")
    stay = [name for name in layers if name not in found.formats]
    if stay:
        said.append(f"{len(stay)} stay what they were ({named(stay)})")
    return (
        f"{where}: {', '.join(said)}; the file has {found.file_bytes / 1024:.4g} KiB, and the "
        f"errors of the layers sum to {found.error:.3g} of the outputs' variance"
    )
