"""Prune: fewer channels, blocks or weights, or embeddings of fewer parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
from compress.config.fields import Name, Number, Pattern, Whole
from compress.config.references import CodeReferences
from compress.distillation.teacher_settings import TeacherBlock
from compress.errors import AlreadySo
from compress.outputs import Implied
from compress.pruning.channels import ChannelPruning, Pruned
from compress.pruning.importance import CRITERIA, Criterion
from compress.pruning.importance_settings import Importance, criterion_of, described
from compress.pruning.invariants import BLOCK, N_OF_M, UNSTRUCTURED, block_shape, n_of_m
from compress.pruning.movement import Movement
from compress.pruning.penalties import PenaltyKind
from compress.stage import Context, Effect, Stage
from compress.stages.chosen_ratios import ChosenRatios
from compress.stages.cut_channels import (
    cut_channels,
    ignored_parts,
    ratios_of_layers,
    ratios_of_original,
)
from compress.stages.cut_in_steps import cut_in_steps, said_of_step, steps_of
from compress.stages.factorize import Factorization
from compress.stages.finetune import FineTune, dry_run, only_pace, trained
from compress.stages.fit import implied_outputs
from compress.stages.goal_search import MOST, Cut
from compress.stages.goals import Goal
from compress.stages.learn_zeros import learn_zeros
from compress.stages.prune_rules import EDITS, UNITS, check, is_granularity
from compress.stages.prune_schedule import CutSchedule, Part, Sparsify, Step, Trainings
from compress.stages.remove_blocks import BlockRemoval
from compress.stages.sparse_learning import Shrinking, SparseLearning, shrinking_of
from compress.stages.to_goal import cut_to_goal, expected_cut
from compress.stages.zero_weights import ZeroWeights, zero_weights

__all__ = ["FineTune", "PruneStage"]

_GRANULARITY = {
    "anyOf": [
        {"enum": [*UNITS, *EDITS, "weights"], "type": "string"},
        {"pattern": f"^({N_OF_M}|{BLOCK})$", "type": "string"},
    ]
}
_MULTIPLES = (1, 8, 16, 32)
_USUAL_TRIES = 12
_LARGEST_MULTIPLE = 65_536


class PruneStage(Stage):
    """Remove the least important channels, blocks or weights, and optionally train after it."""

    effects: ClassVar[frozenset[Effect]] = frozenset(
        {Effect.STRUCTURE, Effect.WEIGHTS, Effect.INVARIANTS}
    )

    kind: Literal["prune"] = "prune"
    ratio: Number = Field(default=0.5, gt=0, lt=1)
    """Share of the channels, heads, blocks or weights that is removed, of embeddings of their
    parameters. The cost of a layer falls with the product of its inputs and outputs: half of the
    channels leave about a quarter of the work. Of blocks it is the nearest number. An ``N:M``
    pattern has its own share."""
    granularity: Annotated[Name, WithJsonSchema(_GRANULARITY)] = "channels"
    """What is removed: ``channels`` makes the model smaller and faster on any device; ``heads``
    removes heads of attention; ``blocks`` removes whole layers of a net that repeats them, those
    first that its outputs miss least; ``embeddings`` makes tables of at least 1,000 rows the
    product of two smaller ones; ``weights``, and a pattern such as ``2:4``, which keeps 2 of every
    4 inputs, set single weights to zero, which by itself helps only storage; ``4x1`` sets whole
    blocks of 4 outputs by 1 input to zero, of 1 to 64 each, for kernels that skip them.

    Source: Men et al. 2024, "ShortGPT", and Sajjad et al. 2023, "On the effect of dropping layers
    of pre-trained transformer models", for blocks; Lan et al. 2020, "ALBERT", for embeddings; Han
    et al. 2015, "Learning both weights and connections", for weights; Mishra et al. 2021,
    "Accelerating sparse deep neural networks", for patterns; Gray et al. 2017, "GPU kernels for
    block-sparse weights", and Lagunas et al. 2021, "Block pruning for faster transformers", for
    blocks of weights.
    """
    importance: Importance = "group-l2"
    """What ranks the channels or heads; those of the lowest importance are removed. Single weights
    go by magnitude, ``wanda``, ``snip``, ``sparsegpt`` or ``movement``, blocks of them by the first
    three; whole layers and embeddings have their own. One of your own is ``module:name``, or a
    block with its options."""
    scope: Literal["local", "global", "sensitivity"] = "local"
    """``local`` removes the same share of every layer; ``global`` compares all layers, and removes
    more where less is lost. ``sensitivity``, with a ``goal``, cuts layers by themselves first to
    see how far the outputs move, and gives each its own share by what it costs of the goal, in time
    that is measured layer by layer.

    Source: Shen et al. 2022, "Structural pruning via latency-saliency knapsack", for
    ``sensitivity``."""
    of: Literal["current", "original"] = "current"
    """What ``ratio`` is a share of: the widths as they are, or those of the architecture before any
    cut, so that a second cut with a larger ratio adds to the first."""
    round_to: Whole = Field(default=1, ge=1, le=_LARGEST_MULTIPLE)
    """Widths stay a multiple of this, the nearest one to the ratio; kernels like 8. Of embeddings
    it is the rank, the next lower one."""
    ignore: tuple[Pattern, ...] = ()
    """Modules, by path, glob or class as ``type:Linear``, that keep all of their channels and
    weights; a parent stands for all in it. A block stays that has one of them."""
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
    schedule: CutSchedule | None = None
    """Make the cut in steps, and train after each; goes with ``finetune``. Where not given, the cut
    is one."""
    sparsify: Sparsify | None = None
    """Train before the cut, so that what will go is driven towards zero; goes with ``finetune``.
    Where not given, there is no such training."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What identifies a stage that does not use it is what it was.
        written: dict[str, Any] = handler(self)
        in_place = [key for key in ("goal", "ratios") if getattr(self, key) is not None]
        absent = {"goal", "ratios", "ratio"} - {*(in_place or ("ratio",))}
        absent |= {key for key in ("schedule", "sparsify") if getattr(self, key) is None}
        return {key: value for key, value in written.items() if key not in absent}

    @field_validator("granularity")
    @classmethod
    def _known_granularity(cls, granularity: str) -> str:
        if is_granularity(granularity):
            return granularity
        raise ValueError(
            f"granularity is channels, heads, blocks, embeddings, weights, N:M with N below M such "
            f"as '2:4', or blocks of 1 to 64 outputs by inputs such as '4x1'; got {granularity!r}"
        )

    @model_validator(mode="after")
    def _goes_together(self) -> PruneStage:
        check(self)
        pattern = n_of_m(self.granularity)
        self._trainings.check(has_goal=self.goal is not None, n_of_m=pattern)
        if self.sparsify is not None:
            self._penalty_kind(self.sparsify)
        return self

    def uses_evaluator(self) -> bool:
        """Whether the goal is about something that has to be measured."""
        return self.goal is not None and self.goal.measures

    def timed_candidates(self) -> int:
        """As many as a search for a goal usually tries."""
        return _USUAL_TRIES if self.goal is not None and self.goal.parts else 0

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The pruned candidate."""
        criterion, trainings = self._criterion(context), self._trainings
        learned = self._sparse_learning(candidate, context, criterion)
        start = candidate if learned is None else learned.candidate
        edit = self._edit(start, context, uses_data=True)

        def make(of: Candidate, within: Context, cut: Cut | Step) -> Candidate:
            made = edit(cut.ratio) if edit else self._removed(of, within, criterion, cut)
            if learned is not None and of.module is start.module:
                learned.take(made)
            return made

        def train(pruned: Candidate, part: Part = trainings.parts[-1]) -> Candidate:
            return self._trained(pruned, context, part)

        if self.schedule is not None:
            request = self._request(start.module, context, criterion, Cut(self.ratio))
            whole = request if isinstance(request, ChannelPruning) else None
            pattern = n_of_m(self.granularity)
            steps = steps_of(self.schedule, self.ratio, pattern, start.module)
            made = cut_in_steps(steps, trainings.parts, start, context, whole, make, train)
        elif criterion.is_learned:
            made = self._learned(start, context, criterion)
        elif self.goal is None:
            made = train(make(start, context, self._given_cut(start.module)))
        else:
            # Kernels take channels in blocks, of 8 or 16 mostly: an odd width may be slower than a
            # larger one.
            free = self.round_to == 1 and self.granularity == "channels" and self.goal.parts
            multiples = _MULTIPLES if free and self.scope != "sensitivity" else (1,)

            def make_cut(cut: Cut) -> Candidate:
                return make(start, context, cut)

            choose = self._chosen(start, context, criterion, make_cut)
            made = cut_to_goal(self.goal, candidate, context, make_cut, train, multiples, choose)
        return made if learned is None else learned.told(made)

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The cut without data and training: the widths are right, the choice is not."""
        criterion = self._criterion(context)
        data_free = CRITERIA["group-l2"] if criterion.needs_data else criterion
        edit = self._edit(candidate, context, uses_data=False)

        def make(cut: Cut) -> Candidate:
            return edit(cut.ratio) if edit else self._removed(candidate, context, data_free, cut)

        cut = self._given_cut(candidate.module)
        if self.goal is not None:
            cut = expected_cut(self.goal, candidate, context, make)
        if self.sparsify is not None:
            with suppress(AlreadySo):  # the cut says so
                self._shrinking(self.sparsify, candidate, context, data_free)
            paced = replace(context, report=only_pace(context.report))
            self._dry_run(candidate, paced, self.sparsify.epochs)
        pruned = make(cut)
        self._dry_run(pruned, context, self._trainings.since_cut)
        return pruned

    def explain(self) -> str:
        """What this stage will do."""
        what = f"weights ({self.granularity} along inputs)"
        if block_shape(self.granularity):
            what = f"weights in blocks of {self.granularity}"
        if self.granularity in (*UNITS, *EDITS, "weights"):
            what = self.granularity
        ranked = EDITS.get(self.granularity, described(self.importance))
        cut = f"remove {100 * self.ratio:.3g}% of the {self.of} {what} by {ranked}"
        if self.goal is not None:
            own = ", a ratio of its own for each layer," if self.scope == "sensitivity" else ""
            cut = f"remove {what} by {ranked}{own} until {self.goal.sentence}"
        if self.ratios is not None:
            cut = f"remove the ratios of {len(self.ratios)} patterns of {what} by {ranked}"
        return self._trainings.said(cut)

    def epochs_of_training(self) -> int:
        """Passes over the training data."""
        return self._trainings.before_cut + self._trainings.since_cut

    def named_teacher(self) -> TeacherBlock | None:
        """The teacher of the training after the cut, where that is not the run's."""
        return self.finetune.teacher if self.finetune else None

    def implied_outputs(self, references: CodeReferences) -> Sequence[Implied]:
        """What the losses of the training after the cut imply that the outputs are."""
        return implied_outputs(self.finetune.losses, references) if self.finetune else ()

    def _criterion(self, context: Context) -> Criterion:
        return criterion_of(self.importance, context.references)

    @property
    def _trainings(self) -> Trainings:
        epochs = self.finetune.epochs if self.finetune else 0
        return Trainings(self.sparsify, self.schedule, epochs)

    def _penalty_kind(self, sparsify: Sparsify) -> PenaltyKind:
        by_batch_norm = self.importance == "bn-scale"
        return sparsify.kind_for(weights=self.granularity not in UNITS, by_batch_norm=by_batch_norm)

    def _shrinking(
        self, sparsify: Sparsify, candidate: Candidate, context: Context, criterion: Criterion
    ) -> Shrinking:
        cut = self._given_cut(candidate.module) if self.goal is None else MOST
        request = self._request(candidate.module, context, criterion, cut)
        kind = self._penalty_kind(sparsify)
        found = shrinking_of(sparsify, kind, candidate, request, criterion)
        # How much the first cut will remove is another share then.
        is_first = self.goal is None and self.schedule is None
        return found if is_first else replace(found, share=None)

    def _sparse_learning(
        self, candidate: Candidate, context: Context, criterion: Criterion
    ) -> SparseLearning | None:
        if self.sparsify is None:
            return None
        try:
            shrinking = self._shrinking(self.sparsify, candidate, context, criterion)
        except AlreadySo:  # the cut says so
            return None
        return SparseLearning.trained(
            self.sparsify,
            shrinking,
            candidate,
            self._trainings.since_cut,
            lambda forked, part: self._trained(forked, context, part),
        )

    def _trained(
        self,
        pruned: Candidate,
        context: Context,
        part: Part,
        movement: Movement | None = None,
    ) -> Candidate:
        if self.finetune is None:
            return pruned
        own = part if self._trainings.are_several else None
        return trained(pruned, context, self.finetune, own, movement)

    def _chosen(
        self,
        start: Candidate,
        context: Context,
        criterion: Criterion,
        make: Callable[[Cut], Candidate],
    ) -> Callable[[float], Mapping[str, float]] | None:
        """Ratios of single layers for a ratio, where each is to have its own."""
        if self.scope != "sensitivity" or self.goal is None:
            return None
        request = self._request(start.module, context, criterion, Cut(0.0))
        assert isinstance(request, ChannelPruning)
        return ChosenRatios(start, context, request, self.goal, make).at

    def _learned(self, start: Candidate, context: Context, criterion: Criterion) -> Candidate:
        """The candidate trained, with the zeros that training chose."""
        request = self._request(start.module, context, criterion, Cut(self.ratio))
        assert isinstance(request, ZeroWeights)
        part = self._trainings.parts[-1]
        return learn_zeros(
            start.fork(), request, lambda own, by: self._trained(own, context, part, by)
        )

    def _dry_run(self, candidate: Candidate, context: Context, epochs: int) -> None:
        if self.finetune is not None:
            dry_run(candidate, context, self.finetune, epochs)

    def _request(
        self, module: nn.Module, context: Context, criterion: Criterion, cut: Cut | Step
    ) -> ChannelPruning | ZeroWeights:
        """What is to be removed of a module; in steps, of what came into the first of them."""
        ignored = ignored_parts(module, self.ignore)
        if self.granularity not in UNITS:
            pattern = UNSTRUCTURED if self.granularity == "weights" else self.granularity
            if isinstance(cut, Step) and cut.n_of_m is not None:
                pattern = "{}:{}".format(*cut.n_of_m)
            return ZeroWeights(cut.ratio, self._ranked_within, pattern, ignored)
        first = cut.incoming if isinstance(cut, Step) else module
        request = ChannelPruning(
            ratio=cut.ratio,
            unit=UNITS[self.granularity],
            importance=criterion,
            scope=self._ranked_within,
            round_to=self.round_to,
            ignore=ignored,
            layer_ratios=self._ratios_of_original(first, context) or {},
        )
        return cut.applied(request)

    @property
    def _ranked_within(self) -> Literal["local", "global"]:
        # Where ratios are chosen by layer, channels compete within theirs.
        return "global" if self.scope == "global" else "local"

    def _edit(
        self, start: Candidate, context: Context, *, uses_data: bool
    ) -> Callable[[float], Candidate] | None:
        """Puts other modules in the place of a share of those of ``start``, where that is asked."""
        if self.granularity not in EDITS:
            return None
        ignored = ignored_parts(start.module, self.ignore)
        if self.granularity == "blocks":
            return BlockRemoval(start, context, ignored, uses_data).removed
        return Factorization(start, context, ignored, self.round_to).factorized

    def _removed(
        self, candidate: Candidate, context: Context, criterion: Criterion, cut: Cut | Step
    ) -> Candidate:
        pruned, implied = candidate.fork(), self.implied_outputs(context.references)
        request = self._request(pruned.module, context, criterion, cut)
        in_steps = isinstance(cut, Step)
        try:
            if isinstance(request, ZeroWeights):
                return zero_weights(pruned, context, request, criterion, implied)
            said = said_of_step(cut) if isinstance(cut, Step) else Pruned.sentence
            return cut_channels(pruned, context, request, criterion, implied, said)
        except AlreadySo as error:
            if self.finetune is None or self.goal is not None or in_steps:
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
