"""Prune: fewer channels, or fewer weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import nn

from compress.candidate import Candidate
from compress.config.fields import LARGEST_RATE, Name, Number, Pattern, Whole
from compress.config.references import CodeReferences
from compress.config.selectors import select
from compress.distillation.default_losses import teacher_losses
from compress.distillation.losses import LabelLoss, LossSettings
from compress.distillation.teachers import TeacherBlock, build_teacher
from compress.errors import AlreadySo
from compress.outputs import Implied
from compress.pruning.channels import ChannelPruning, Unit
from compress.pruning.importance import CRITERIA, Criterion
from compress.pruning.importance_settings import Importance, criterion_of, described
from compress.pruning.invariants import N_OF_M, n_of_m
from compress.stage import (
    Context,
    Effect,
    Stage,
    Teacher,
)
from compress.stages.cut_channels import cut_channels, ratios_of_layers, ratios_of_original
from compress.stages.dry_run import dry_run_losses
from compress.stages.fit import fit, implied_outputs, supervision_of
from compress.stages.goal_search import Cut
from compress.stages.goals import Goal
from compress.stages.to_goal import cut_to_goal, expected_cut
from compress.stages.training_settings import Training
from compress.stages.zero_weights import ZeroWeights, zero_weights
from compress.training.supervision import has_a_label

__all__ = ["FineTune", "PruneStage"]

#: Granularities that change the structure, by what is cut.
_UNITS: Mapping[str, Unit] = {"channels": "channels", "heads": "heads"}
_GRANULARITY = {
    "anyOf": [
        {"enum": [*_UNITS, "weights"], "type": "string"},
        {"pattern": f"^{N_OF_M}$", "type": "string"},
    ]
}
_MULTIPLES = (1, 8, 16, 32)
_USUAL_TRIES = 12
_LARGEST_MULTIPLE = 65_536


class FineTune(Training):
    """Training after the cut."""

    # Lower than for training from scratch, so that what was learned is kept.
    learning_rate: Number = Field(default=1e-3, gt=0, le=LARGEST_RATE)
    """The highest learning rate; lower than in training from scratch, so that what was learned is
    kept."""
    losses: tuple[LossSettings, ...] = ()
    """What is minimized: the weighted sum of these losses. Where not given, ``label``, or, of data
    without labels, the loss on the teacher's outputs that fits them."""
    teacher: TeacherBlock | None = None
    """What losses such as ``response`` learn from. Where not given, the model that entered the
    recipe, or that its last train stage made."""


class PruneStage(Stage):
    """Remove the least important channels or weights, and optionally train after it."""

    effects: ClassVar[frozenset[Effect]] = frozenset(
        {Effect.STRUCTURE, Effect.WEIGHTS, Effect.INVARIANTS}
    )

    kind: Literal["prune"] = "prune"
    ratio: Number = Field(default=0.5, gt=0, lt=1)
    """Share of the channels, heads or weights that is removed. The cost of a layer falls with the
    product of its inputs and outputs: half of the channels leave about a quarter of the work. An
    ``N:M`` pattern has its own share."""
    granularity: Annotated[Name, WithJsonSchema(_GRANULARITY)] = "channels"
    """What is removed: ``channels`` makes the model smaller and faster on any device; ``heads``
    removes heads of attention; ``weights``, and a pattern such as ``2:4``, which keeps 2 of every 4
    inputs, set single weights to zero, which by itself helps only storage.

    Source: Han et al. 2015, "Learning both weights and connections", for weights; Mishra et al.
    2021, "Accelerating sparse deep neural networks", for patterns.
    """
    importance: Importance = "group-l2"
    """What ranks the channels or heads; those of the lowest importance are removed. Single weights
    go by magnitude, ``wanda`` or ``snip``. One of your own is ``module:name``, or a block with its
    options."""
    scope: Literal["local", "global"] = "local"
    """``local`` removes the same share of every layer; ``global`` compares all layers, and removes
    more where less is lost."""
    of: Literal["current", "original"] = "current"
    """What ``ratio`` is a share of: the widths as they are, or those of the architecture before any
    cut, so that a second cut with a larger ratio adds to the first."""
    round_to: Whole = Field(default=1, ge=1, le=_LARGEST_MULTIPLE)
    """Widths stay a multiple of this, the nearest one to the ratio; kernels like 8."""
    ignore: tuple[Pattern, ...] = ()
    """Modules, by path, glob or class as ``type:Linear``, that keep all of their channels and
    weights; a parent stands for all in it."""
    goal: Goal | None = None
    """What the model is to be after the stage, in place of ``ratio``: how much goes is found by
    cutting, and by measuring on the target where time or file size is asked for."""
    ratios: dict[Pattern, Annotated[Number, Field(ge=0, lt=1)]] | None = None
    """In place of ``ratio``, that of single layers: by path, glob or class, of which the last that
    matches a layer counts. Layers that none matches keep all. Layers that are cut together have the
    ratio of the first of them."""
    finetune: FineTune | None = None
    """Training after the cut. Where not given, there is none; a later train or distill stage does
    as well."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What identifies a stage that does not use it is what it was.
        written: dict[str, Any] = handler(self)
        in_place = [key for key in ("goal", "ratios") if getattr(self, key) is not None]
        absent = {"goal", "ratios", "ratio"} - {*(in_place or ("ratio",))}
        return {key: value for key, value in written.items() if key not in absent}

    @field_validator("granularity")
    @classmethod
    def _known_granularity(cls, granularity: str) -> str:
        if granularity in (*_UNITS, "weights") or n_of_m(granularity):
            return granularity
        raise ValueError(
            f"granularity is channels, heads, weights, or N:M with N below M such as '2:4'; "
            f"got {granularity!r}"
        )

    @model_validator(mode="after")
    def _goes_together(self) -> PruneStage:
        if self.granularity != "channels":
            for field, default in (("round_to", 1), ("of", "current")):
                if getattr(self, field) != default:
                    raise ValueError(f"{field} is for granularity channels")
        self._check_goal()
        self._check_ratios()
        if self.granularity == "heads" and self.scope == "global":
            raise ValueError("heads are counted in each block, and go with scope: local")
        known = CRITERIA.get(self.importance) if isinstance(self.importance, str) else None
        of_weights = known is not None and known.of_weights
        if self.granularity in _UNITS and of_weights:
            raise ValueError(
                f"importance {self.importance} is for single weights: granularity: weights, or "
                "such as '2:4'"
            )
        if self.granularity not in _UNITS and not (known and (known.by_magnitude or of_weights)):
            ranked = described(self.importance)
            raise ValueError(
                f"importance {ranked} is for channels; weights go by magnitude, wanda or snip"
            )
        if known is not None and known.within_outputs and self.scope == "global":
            raise ValueError(
                f"importance {self.importance} ranks within each output, and goes with scope: local"
            )
        if self.of == "original" and self.scope == "global":
            raise ValueError("of: original counts per layer and goes with scope: local")
        return self

    def _check_goal(self) -> None:
        if self.goal is None:
            return
        if self.ratio != type(self).model_fields["ratio"].default:
            raise ValueError("give ratio or goal, which finds the ratio")
        if self.granularity not in _UNITS:
            raise ValueError("goal is for granularity channels or heads; zeros change no cost")
        if self.of == "original":
            raise ValueError("goal is of the model that comes in; leave `of` out")

    def _check_ratios(self) -> None:
        if self.ratios is None:
            return
        if self.goal is not None or self.ratio != type(self).model_fields["ratio"].default:
            raise ValueError("give one of ratio, ratios and goal")
        if not any(self.ratios.values()):
            raise ValueError("ratios: none is above 0, so that nothing would be cut")
        if self.granularity not in _UNITS:
            raise ValueError("ratios are for granularity channels or heads")
        if self.scope == "global" or self.of == "original":
            raise ValueError("ratios are of single layers: leave `scope` and `of` out")

    def uses_evaluator(self) -> bool:
        """Whether the goal is about something that has to be measured."""
        return self.goal is not None and self.goal.measures

    def timed_candidates(self) -> int:
        """As many as a search for a goal usually tries."""
        return _USUAL_TRIES if self.goal is not None and self.goal.parts else 0

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The pruned candidate."""
        criterion = self._criterion(context)

        def make(cut: Cut) -> Candidate:
            return self._removed(candidate, context, criterion, cut)

        def train(pruned: Candidate) -> Candidate:
            if self.finetune is None:
                return pruned
            losses, teacher = _losses_and_teacher(self.finetune, pruned, context)
            return fit(pruned, context, self.finetune, losses, teacher)

        if self.goal is None:
            return train(make(self._given_cut(candidate.module)))
        # Kernels take channels in blocks, of 8 or 16 mostly: an odd width may be slower than a
        # larger one.
        free = self.round_to == 1 and self.granularity == "channels" and self.goal.parts
        multiples = _MULTIPLES if free else (1,)
        return cut_to_goal(self.goal, candidate, context, make, train, multiples)

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The cut without data and training: the widths are right, the choice is not."""
        criterion = self._criterion(context)
        needs_data = criterion.reads_gradients or criterion.of_weights
        data_free = CRITERIA["group-l2"] if needs_data else criterion

        def make(cut: Cut) -> Candidate:
            return self._removed(candidate, context, data_free, cut)

        cut = self._given_cut(candidate.module)
        if self.goal is not None:
            cut = expected_cut(self.goal, candidate, context, make)
        pruned = make(cut)
        if self.finetune is not None:
            losses, teacher = _losses_and_teacher(self.finetune, pruned, context)
            dry_run_losses(pruned, context, self.finetune, losses, teacher)
        return pruned

    def explain(self) -> str:
        """What this stage will do."""
        what = f"weights ({self.granularity} along inputs)"
        if self.granularity in (*_UNITS, "weights"):
            what = self.granularity
        ranked = described(self.importance)
        tail = f", then train {self.finetune.epochs} epochs" if self.finetune else ""
        if self.goal is not None:
            return f"remove {what} by {ranked} until {self.goal.sentence}{tail}"
        if self.ratios is not None:
            return f"remove the ratios of {len(self.ratios)} patterns of {what} by {ranked}{tail}"
        return f"remove {100 * self.ratio:.3g}% of the {self.of} {what} by {ranked}{tail}"

    def epochs_of_training(self) -> int:
        """Passes over the training data."""
        return self.finetune.epochs if self.finetune else 0

    def named_teacher(self) -> TeacherBlock | None:
        """The teacher of the training after the cut, where that is not the run's."""
        return self.finetune.teacher if self.finetune else None

    def implied_outputs(self, references: CodeReferences) -> Sequence[Implied]:
        """What the losses of the training after the cut imply that the outputs are."""
        return implied_outputs(self.finetune.losses, references) if self.finetune else ()

    def _criterion(self, context: Context) -> Criterion:
        return criterion_of(self.importance, context.references)

    def _removed(
        self, candidate: Candidate, context: Context, criterion: Criterion, cut: Cut
    ) -> Candidate:
        pruned, implied = candidate.fork(), self.implied_outputs(context.references)
        ignored = self._ignored(pruned.module)
        try:
            if self.granularity not in _UNITS:
                request = ZeroWeights(self.ratio, self.scope, n_of_m(self.granularity), ignored)
                return zero_weights(pruned, context, request, criterion, implied)
            channels = ChannelPruning(
                ratio=cut.ratio,
                unit=_UNITS[self.granularity],
                importance=criterion,
                scope=self.scope,
                round_to=math.lcm(self.round_to, cut.round_to),
                ignore=ignored,
                layer_ratios=self._ratios_of_original(pruned.module, context) or cut.layers,
            )
            return cut_channels(pruned, context, channels, criterion, implied)
        except AlreadySo as error:
            if self.finetune is None or self.goal is not None:
                raise
            return replace(pruned, notes=(*pruned.notes, str(error).rstrip(".")))

    def _ratios_of_original(self, module: nn.Module, context: Context) -> dict[str, float] | None:
        if self.of == "current":
            return None
        return ratios_of_original(module, context.origin.module, self.ratio)

    def _given_cut(self, module: nn.Module) -> Cut:
        if self.ratios is None:
            return Cut(self.ratio)
        return Cut(0.0, layers=ratios_of_layers(module, self.ratios))

    def _ignored(self, module: nn.Module) -> list[str]:
        # Any module may be named, a parent of layers too, and a parameter that is in none.
        known: dict[str, str] = {
            name: type(layer).__name__ for name, layer in module.named_modules() if name
        }
        known |= {name: "Parameter" for name, _ in module.named_parameters(recurse=False)}
        return select(self.ignore, known, where="ignore") if self.ignore else []


def _losses_and_teacher(
    finetune: FineTune, pruned: Candidate, context: Context
) -> tuple[tuple[LossSettings, ...], Teacher]:
    losses = finetune.losses
    if not losses:
        supervision = supervision_of(pruned, context)
        labeled = has_a_label(context.task.train, supervision)
        losses = (LabelLoss(),) if labeled else teacher_losses(supervision)
    return losses, build_teacher(finetune.teacher, context)
