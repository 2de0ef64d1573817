"""Numerics: which layer is computed in which number format.

A quantize stage only *decides* formats; it adds a :class:`QuantRule` here and changes nothing else.
The encoding happens at lowering. Rules are ordered and a later rule wins for the layers that it
selects, which is how mixed precision is written. Pure data: no torch, no ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from glob import escape
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from compress.config.fields import LARGEST_COUNT, Flag, Number, Whole
from compress.config.selectors import matches, select
from compress.config.settings import Settings
from compress.quantization.formats import ACTIVATIONS, WEIGHTS, why_not_together
from compress.quantization.formats.base import ActivationQuantizer, WeightQuantizer
from compress.quantization.formats.learned_steps import LearnedSteps
from compress.quantization.formats.uniform import IntegerWeights, StaticActivations

__all__ = [
    "FLOAT32",
    "ActivationFormat",
    "Calibration",
    "LayerFormat",
    "Numerics",
    "QuantRule",
    "WeightFormat",
]

if TYPE_CHECKING:
    WeightFormat = str
    ActivationFormat = str
else:
    #: The names of formats, for pydantic and the JSON Schema.
    WeightFormat = Literal[tuple(WEIGHTS)]
    ActivationFormat = Literal[tuple(ACTIVATIONS)]


class Calibration(Settings):
    """How the range of a static activation is chosen from calibration data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["minmax", "percentile", "mse"] = "minmax"
    """``minmax`` keeps every value seen; ``percentile`` clips the tails; ``mse`` takes the clip
    with the least squared rounding error.

    Source: Sung et al. 2015, "Resiliency of deep neural networks under quantization", for ``mse``.
    """
    percentile: Number = Field(default=99.99, gt=50, le=100)
    """Of ``method: percentile``: how many percent of the values stay inside the range."""
    samples: Whole = Field(default=256, ge=1, le=LARGEST_COUNT)
    """How many samples the ranges are taken from: the first ones of the task's calibration data, or
    else of its training data."""


class LayerFormat(Settings):
    """The formats of one layer: its weights, its input activations, and how ranges are chosen.

    ``clip`` has, of each output channel, the share of its largest weight that is its range; weights
    beyond it are clipped. A training may have learned it
    (:class:`compress.quantization.clips.LearnedClips`); without one the largest weight is the
    range. ``learn_steps``: training learns how far to clip, and so the step of integer weights
    (:class:`compress.quantization.formats.learned_steps.LearnedSteps`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightFormat = "float32"
    activations: ActivationFormat = "float32"
    calibration: Calibration = Calibration()
    clip: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    learn_steps: Flag = False

    @property
    def is_float32(self) -> bool:
        """Whether nothing is quantized."""
        return self.weights == "float32" and self.activations == "float32"

    @property
    def weight_quantizer(self) -> WeightQuantizer:
        """How weights are rounded and stored."""
        quantizer = WEIGHTS[self.weights]
        if self.learn_steps and isinstance(quantizer, IntegerWeights):
            return LearnedSteps.of(quantizer)
        return quantizer

    @property
    def activation_quantizer(self) -> ActivationQuantizer:
        """How input activations are rounded."""
        return ACTIVATIONS[self.activations]

    @property
    def learns_clip(self) -> bool:
        """Whether training learns how far weights are clipped."""
        return self.weight_quantizer.learns_clip

    @property
    def static_quantizer(self) -> StaticActivations | None:
        """:attr:`activation_quantizer`, if its range is fixed by calibration; ``None`` if not."""
        quantizer = self.activation_quantizer
        return quantizer if isinstance(quantizer, StaticActivations) else None

    @property
    def needs_range(self) -> bool:
        """Whether activations have a fixed range, which needs calibration."""
        return self.static_quantizer is not None

    @property
    def weights_only(self) -> LayerFormat:
        """What is left of this where activations stay as they are, as for an embedding."""
        if self.activation_quantizer.needs_integer_weights:
            return LayerFormat(weights=self.weights, clip=self.clip, learn_steps=self.learn_steps)
        return self

    @property
    def recurrent(self) -> LayerFormat:
        """What a recurrent layer computes in where this is declared for it.

        Its state has another range at each step, so that none is fixed.
        """
        if not self.needs_range:
            return self
        instead = self.activation_quantizer.when_recurrent
        if instead is None:
            return self.weights_only
        return LayerFormat(weights=self.weights, activations=instead)

    def with_clip(self, clip: tuple[float, ...]) -> LayerFormat:
        """This with another clip; with an empty one, its range is that of the largest weight."""
        return self.model_copy(update={"clip": clip})

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Fingerprints of candidates that have neither are what they were.
        written: dict[str, Any] = handler(self)
        absent = {key for key in ("clip", "learn_steps") if not getattr(self, key)}
        return {key: value for key, value in written.items() if key not in absent}

    @model_validator(mode="after")
    def _formats_go_together(self) -> LayerFormat:
        if (reason := why_not_together(self.weights, self.activations)) is not None:
            raise ValueError(reason)
        if self.learn_steps and not self.weight_quantizer.is_integer:
            integers = ", ".join(name for name, each in WEIGHTS.items() if each.is_integer)
            raise ValueError(
                f"learn_steps is for integer weights ({integers}); got weights: {self.weights}"
            )
        return self


FLOAT32 = LayerFormat()


class QuantRule(Settings):
    """One decision: the layers that ``select`` names, less ``exclude``, get ``format``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    select: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    format: LayerFormat


@dataclass(frozen=True)
class Numerics:
    """Ordered rules; the default is float32 everywhere."""

    rules: tuple[QuantRule, ...] = ()

    def with_rule(self, rule: QuantRule) -> Numerics:
        """These rules with one more, which wins where selectors overlap."""
        return Numerics((*self.rules, rule))

    def with_formats(self, formats: Mapping[str, LayerFormat]) -> Numerics:
        """These rules with one more for each format, of the layers that get it, by path."""
        by_format: dict[LayerFormat, list[str]] = {}
        for name, format in formats.items():
            by_format.setdefault(format, []).append(escape(name))
        rules = (QuantRule(select=tuple(names), format=own) for own, names in by_format.items())
        return Numerics((*self.rules, *rules))

    @property
    def clip_rules(self) -> tuple[QuantRule, ...]:
        """The rules that say how far a layer's weights are clipped; a training made them."""
        return tuple(rule for rule in self.rules if rule.format.clip)

    def with_clips(
        self, clips: Mapping[str, tuple[float, ...]], layers: Mapping[str, str]
    ) -> Numerics:
        """These rules, and a rule for each layer that has a clip, in place of an earlier one.

        Args:
            clips: by layer.
            layers: as :meth:`resolve` takes them.
        """
        formats, named = self.resolve(layers), {escape(name): name for name in clips}
        others = (r for r in self.rules if not (r.format.clip and r.select[0] in named))
        learned = (
            QuantRule(select=(pattern,), format=formats[name].with_clip(clips[name]))
            for pattern, name in named.items()
        )
        return Numerics((*others, *learned))

    def without_clips(self, layers: Iterable[str] | None = None) -> Numerics:
        """These rules without the clips of some layers, or of all: of weights that are no more."""
        patterns = None if layers is None else [escape(name) for name in layers]
        return Numerics(
            tuple(
                rule
                for rule in self.rules
                if not rule.format.clip or (patterns is not None and rule.select[0] not in patterns)
            )
        )

    def resolve(self, layers: Mapping[str, str]) -> dict[str, LayerFormat]:
        """The format of every layer.

        ``layers`` maps the path of each layer that can have a format to its class name
        (``fakequant.layers_with_formats`` makes it).

        Raises:
            SelectorError: a rule whose pattern matches no layer, other than the rule of a clip.
        """
        formats = dict.fromkeys(layers, FLOAT32)
        for number, rule in enumerate(self.rules):
            if rule.format.clip and not _selects_any(rule, layers):
                continue  # no user named the layer: a stage has removed it
            chosen = select(
                rule.select, layers, exclude=rule.exclude, where=f"numerics.rules[{number}]"
            )
            formats.update(dict.fromkeys(chosen, rule.format))
        return formats

    def carried_to(self, layers: Mapping[str, str]) -> tuple[Numerics, tuple[str, ...]]:
        """These rules for another architecture, without clips, which are of weights that are gone.

        See :meth:`matching`.
        """
        return self.without_clips().matching(layers)

    def matching(self, layers: Mapping[str, str]) -> tuple[Numerics, tuple[str, ...]]:
        """These rules where only ``layers`` are left: patterns that match none of them are dropped.

        Returns the new rules and the dropped patterns, so that the record can name them.
        """
        kept: list[QuantRule] = []
        dropped: list[str] = []

        def here(patterns: tuple[str, ...]) -> tuple[str, ...]:
            found = tuple(
                p for p in patterns if any(matches(p, name, kind) for name, kind in layers.items())
            )
            dropped.extend(p for p in patterns if p not in found)
            return found

        for rule in self.rules:
            chosen, excluded = here(rule.select), here(rule.exclude)
            if chosen:
                kept.append(rule.model_copy(update={"select": chosen, "exclude": excluded}))
        return Numerics(tuple(kept)), tuple(dropped)


def _selects_any(rule: QuantRule, layers: Mapping[str, str]) -> bool:
    return any(matches(p, name, kind) for p in rule.select for name, kind in layers.items())
