"""Quantize: decide which layers are computed in which number format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import escape
from typing import Annotated, Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from compress.candidate import Candidate
from compress.config.descriptions import Choices
from compress.config.drops import Drop
from compress.config.fields import Flag, Pattern
from compress.config.selectors import named, select
from compress.errors import AlreadySo, NoEffect
from compress.quantization.fakequant import called_layers, layers_with_formats, learned_clips
from compress.quantization.formats import about_activations, about_weights, default_activations
from compress.quantization.numerics import (
    ActivationFormat,
    Calibration,
    LayerFormat,
    QuantRule,
    WeightFormat,
)
from compress.stage import Context, Effect, Stage, formats_of
from compress.stages.give_back import give_back
from compress.stages.within_size import SizeBudget, quantize_within

__all__ = ["QuantizeStage"]


class QuantizeStage(Stage):
    """Declare number formats; weights stay float until the artifact is made.

    ``int8``/``int8`` for weights and activations is static, ``int8``/``dynamic`` finds ranges at
    run time, ``int8``/``float32`` stores small and computes in float, ``float16`` halves the file.
    An embedding (``nn.Embedding``) has a format for its weights only, as has a recurrent layer
    without an int8 kernel (GRU, RNN); an LSTM and any cell find their ranges at run time where
    static ones are asked for. A layer that the model never calls stays in float32.

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference".
    """

    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.NUMERICS})

    kind: Literal["quantize"] = "quantize"
    weights: Annotated[WeightFormat, Choices(about_weights)] = "int8"
    """The format that weights are stored in, with a scale for each output channel."""
    activations: Annotated[ActivationFormat, Choices(about_activations)] = "int8"
    """The format that the inputs of layers are computed in. Where only ``weights`` is given, and is
    no integer format, they have the format that goes with it."""
    select: tuple[Pattern, ...] = ("*",)
    """Layers that get the formats, by path, glob or class as ``type:Linear``; where several
    quantize stages select a layer, the last one wins, which is how mixed precision is written."""
    exclude: tuple[Pattern, ...] = ()
    """Layers of those selected that are left as they are."""
    calibration: Calibration = Calibration()
    """How the ranges of static activations are chosen."""
    learn_steps: Flag = False
    """Whether stages that train learn the steps of integer weights, too.

    Source: Esser et al. 2020, "Learned step size quantization".
    """

    max_drop: Drop | None = None
    """What the task's metric may lose on the validation split, of the deployed model against that
    of the one that comes in: a share of a rate, such as 0.01, or points of it, as ``1%`` or
    ``1pt``; of another metric, a number in its own unit. Where all layers lose more, as few as
    needed stay what they were, those that disturb the outputs most first."""
    relative: Flag = False
    """Whether ``max_drop`` is a share of the score of the model that comes in: 0.01, or ``1%``, of
    0.8 is then 0.008."""
    give_back: Literal["error", "time"] = "error"
    """Of ``max_drop``: which layers go back first. ``error``: those that disturb the outputs most;
    ``time``: those that disturb them most for the time that they win on the first target, by its
    profile of the whole file, so that what goes back costs the fewest milliseconds."""
    budget: SizeBudget | None = None
    """The size that the file may have. Each selected layer gets the stage's format, another of
    those named, or none, so that the file keeps the size and the outputs move least, by what each
    layer alone does to them."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What identifies a stage that does not use it is what it was.
        written: dict[str, Any] = handler(self)
        used = {
            "learn_steps": self.learn_steps,
            "max_drop": self.max_drop is not None,
            "relative": self.relative,
            "give_back": self.give_back != "error",
            "budget": self.budget is not None,
        }
        absent = {key for key, is_used in used.items() if not is_used}
        return {key: value for key, value in written.items() if key not in absent}

    @model_validator(mode="before")
    @classmethod
    def _fill_activations(cls, data: Any) -> Any:
        # `weights: float16` alone means what it says; the default below is for integers.
        if isinstance(data, dict) and (default := default_activations(data.get("weights"))):
            return {"activations": default, **data}
        return data

    @model_validator(mode="after")
    def _formats_go_together(self) -> QuantizeStage:
        self.format  # noqa: B018 - its validator raises
        if self.budget is not None and self.max_drop is not None:
            raise ValueError("give max_drop or budget: each decides which layers are quantized")
        if self.give_back != "error" and self.max_drop is None:
            raise ValueError("give_back is about max_drop: give it, or leave give_back out")
        if self.relative and self.max_drop is None:
            raise ValueError("relative is about max_drop: give it, or leave relative out")
        if self.budget is not None and self.format.is_float32:
            raise ValueError("budget: the stage's own format is float32, which makes nothing small")
        return self

    @property
    def format(self) -> LayerFormat:
        """The format that the selected layers get."""
        return LayerFormat(
            weights=self.weights,
            activations=self.activations,
            calibration=self.calibration,
            learn_steps=self.learn_steps,
        )

    def uses_evaluator(self) -> bool:
        """Whether it chooses layers by what is lost, or by the size of the file."""
        return self.max_drop is not None or self.budget is not None

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate with one more rule."""
        after = self.rehearse(candidate, context)
        if self.budget is not None:
            found = quantize_within(
                *(self.budget, self.format, candidate, context),
                lambda formats: self._with_formats(candidate, formats),
            )
        elif self.max_drop is not None:
            found = give_back(
                *(candidate, self.max_drop, context),
                lambda left: self._declared(candidate, left),
                relative=self.relative,
                by_time=self.give_back == "time",
            )
        else:
            return after
        return replace(found, notes=(*after.notes, *found.notes))

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """All selected layers in the format: what a run begins with."""
        idle, after = self._idle(candidate), self._declared(candidate, ())
        if formats_of(after) == formats_of(candidate):
            raise AlreadySo(
                f"quantize: every selected layer already has weights {self.weights} and "
                f"activations {self.activations}."
            )
        notes = (
            (*_idle_notes(idle), *_fixed_step_notes(after)) if not self.format.is_float32 else ()
        )
        return replace(after, notes=notes)

    def _declared(self, candidate: Candidate, left: Sequence[str]) -> Candidate:
        """The candidate with one more rule, for all selected layers but ``left``."""
        exclude = (*self.exclude, *map(escape, left))
        rule = QuantRule(select=self.select, exclude=exclude, format=self.format)
        return replace(candidate.fork(), numerics=candidate.numerics.with_rule(rule))

    def _with_formats(self, candidate: Candidate, formats: Mapping[str, LayerFormat]) -> Candidate:
        """The candidate with a rule for each format, of those of its layers that are selected."""
        layers = layers_with_formats(candidate.module)
        chosen = set(select(self.select, layers, exclude=self.exclude, where="select"))
        own = {name: format for name, format in formats.items() if name in chosen}
        return replace(candidate.fork(), numerics=candidate.numerics.with_formats(own))

    def explain(self) -> str:
        """What this stage will do."""
        left = f" except {', '.join(self.exclude)}" if self.exclude else ""
        how = f", ranges by {self.calibration.method}" if self.format.needs_range else ""
        steps = " with learned steps" if self.learn_steps else ""
        within = "" if self.max_drop is None else f", within a drop of {self.max_drop:g}"
        within += " of the score" if self.relative else ""
        if self.budget is not None:
            within = f", as many layers as a file of {self.budget.artifact_kib:g} KiB asks for"
            if self.budget.formats:
                within += f", or as {' or '.join(self.budget.formats)}"
        return (
            f"declare {', '.join(self.select)}{left} as weights {self.weights}{steps}, "
            f"activations {self.activations}{how}{within}"
        )

    def _idle(self, candidate: Candidate) -> list[str]:
        """The selected layers that the model never calls."""
        layers = layers_with_formats(candidate.module)
        if not layers:
            raise NoEffect("quantize: the model has no layer whose weights could be quantized.")
        chosen = select(self.select, layers, exclude=self.exclude, where="select")
        if not chosen:
            raise NoEffect("quantize: exclude leaves none of the selected layers.")
        called = called_layers(candidate.module, candidate.example)
        idle = [name for name in chosen if name not in called]
        if idle == chosen:
            raise NoEffect(
                f"quantize: the model calls none of the selected layers ({named(idle)}), so that "
                "no format would change what it computes; select others."
            )
        return idle


def _fixed_step_notes(candidate: Candidate) -> tuple[str, ...]:
    """A note of the layers whose steps should be learned and cannot be."""
    declared = candidate.numerics.resolve(layers_with_formats(candidate.module))
    formats = formats_of(candidate)
    clips = learned_clips(candidate.module, formats)
    fixed = [name for name in formats if declared[name].learns_clip and name not in clips]
    return (f"steps of {named(fixed)} are not learned: recurrent layers",) if fixed else ()


def _idle_notes(idle: Sequence[str]) -> tuple[str, ...]:
    if not idle:
        return ()
    are, stay = ("is", "stays") if len(idle) == 1 else ("are", "stay")
    return (f"{named(idle)} {are} not called by the model and {stay} in float32",)
