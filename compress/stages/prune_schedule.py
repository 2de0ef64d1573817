"""Settings of a cut that is made in steps, and of the sparse training before a cut."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeVar

from pydantic import ConfigDict, Field
from torch import nn

from compress.config.fields import LARGEST_COUNT, LARGEST_FACTOR, Number, Whole
from compress.config.settings import Settings
from compress.events import EpochEnd, StepEnd
from compress.pruning.channels import ChannelPruning
from compress.pruning.penalties import Penalty, PenaltyKind

__all__ = ["CutSchedule", "Part", "Sparsify", "Step", "Trainings"]

_MOST_STEPS = 64
_Event = TypeVar("_Event", EpochEnd, StepEnd)


class CutSchedule(Settings):
    """A cut in steps, with training after each.

    What goes is ranked anew at every step, on the weights as training has left them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Whole = Field(default=4, ge=2, le=_MOST_STEPS)
    """How many cuts there are. Of an ``N:M`` pattern at most M - N, since each takes one more of
    every M inputs, at least."""
    curve: Literal["cubic", "linear", "geometric"] = "cubic"
    """How much is gone after step k of n, of a final share s: ``cubic`` s (1 - (1 - k/n)^3), most
    of it early, while much can be spared; ``linear`` s k/n; ``geometric`` 1 - (1 - s)^(k/n), the
    same share of what is left each time.

    Source: Zhu and Gupta 2017, "To prune, or not to prune", for cubic; Han et al. 2015, "Learning
    both weights and connections", for geometric.
    """
    epochs: Whole = Field(default=1, ge=1, le=LARGEST_COUNT)
    """Passes over the training data after every step but the last, which ``finetune.epochs``
    follow; all else is as in ``finetune``. Each of these is a training of its own, in which the
    learning rate goes through its whole schedule."""

    def shares(self, whole: float) -> tuple[float, ...]:
        """What is gone after each step, where ``whole`` is gone after the last; rising."""
        rising = [self._share(whole, number / self.steps) for number in range(1, self.steps)]
        return (*rising, whole)

    def patterns(self, n: int, m: int) -> tuple[tuple[int, int], ...]:
        """The pattern after each step, each keeping at least one less of ``m`` than the one before.

        Of as many steps as there are inputs to remove, each removes one.
        """
        dropped, made = 0, []
        for number, share in enumerate(self.shares(1 - n / m), start=1):
            most = m - n - (self.steps - number)
            dropped = min(max(round(m * share), dropped + 1), most)
            made.append((m - dropped, m))
        return tuple(made)

    def check_pattern(self, n: int, m: int) -> None:
        """See that a pattern has as many steps.

        Raises:
            ValueError: it has fewer.
        """
        if m - n == 1:
            raise ValueError(
                f"schedule: {n}:{m} takes one of every {m} inputs, which is one step; leave "
                "schedule out"
            )
        if self.steps > m - n:
            raise ValueError(
                f"schedule: each step of {n}:{m} takes one more of every {m} inputs at least, so "
                f"that there are at most {m - n}; got steps {self.steps}"
            )

    def _share(self, whole: float, progress: float) -> float:
        if self.curve == "linear":
            return whole * progress
        if self.curve == "geometric":
            return float(1 - (1 - whole) ** progress)
        return float(whole * (1 - (1 - progress) ** 3))


class Sparsify(Settings):
    """A training before the cut that drives what will go towards zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Whole = Field(default=3, ge=1, le=LARGEST_COUNT)
    """Passes over the training data; all else is as in ``finetune``."""
    weight: Number = Field(default=1e-4, gt=0, le=LARGEST_FACTOR)
    """What the penalty is multiplied with, beside the losses. Too small a one changes nothing, and
    too large a one drives everything to zero: the row says what it did."""
    penalty: PenaltyKind | None = None
    """What is kept small: ``group-lasso``, the sum of the norms of all weights that go with each
    channel; ``bn-scale``, the sum of the absolute scales of batch norms; ``l1``, the sum of the
    absolute weights. Where not given, ``l1`` for weights, ``bn-scale`` for channels ranked by it,
    else ``group-lasso``.

    Source: Wen et al. 2016, "Learning structured sparsity in deep neural networks"; Fang et al.
    2023, "DepGraph", for groups over several layers; Liu et al. 2017, "Learning efficient
    convolutional networks through network slimming".
    """

    def kind_for(self, *, weights: bool, by_batch_norm: bool) -> PenaltyKind:
        """The penalty, or the one that fits what is cut.

        Args:
            weights: whether single weights are.
            by_batch_norm: whether channels are ranked by scales of batch norms.

        Raises:
            ValueError: it does not fit.
        """
        if self.penalty is None:
            return "l1" if weights else "bn-scale" if by_batch_norm else "group-lasso"
        if weights != (self.penalty == "l1"):
            cut, fit = ("weights", "l1") if weights else ("channels", "group-lasso or bn-scale")
            raise ValueError(f"sparsify: for {cut} the penalty is {fit}; got {self.penalty}")
        return self.penalty


@dataclass(frozen=True)
class Trainings:
    """All trainings of a stage that cuts.

    Args:
        sparsify: before the first cut; ``None`` for none.
        schedule: of the cuts; ``None`` for one.
        epochs: after the last cut; 0 for none.
    """

    sparsify: Sparsify | None
    schedule: CutSchedule | None
    epochs: int

    @property
    def are_several(self) -> bool:
        """Whether there may be more than the one after the cut."""
        return self.sparsify is not None or self.schedule is not None

    @property
    def before_cut(self) -> int:
        """Epochs before the first cut."""
        return 0 if self.sparsify is None else self.sparsify.epochs

    @property
    def since_cut(self) -> int:
        """Epochs from the first cut on."""
        between = 0 if self.schedule is None else (self.schedule.steps - 1) * self.schedule.epochs
        return between + self.epochs

    @property
    def parts(self) -> list[Part]:
        """The trainings from the first cut on, in order."""
        made, done = list[Part](), self.before_cut
        whole = self.before_cut + self.since_cut
        if self.schedule is not None:
            each = self.schedule.epochs
            for number in range(1, self.schedule.steps):
                name = f"step {number} of {self.schedule.steps}"
                made.append(Part(name, each, done, whole - done - each))
                done += each
        return [*made, Part("finetune", self.epochs, done, 0, self.since_cut)]

    def check(self, *, has_goal: bool, n_of_m: tuple[int, int] | None) -> None:
        """See that they go together with the cut.

        Raises:
            ValueError: they do not.
        """
        for key, block in (("schedule", self.schedule), ("sparsify", self.sparsify)):
            if block is not None and not self.epochs:
                raise ValueError(
                    f"{key} takes the settings of its training from finetune, which is not given; "
                    "add finetune: {epochs: 5}"
                )
        if self.schedule is None:
            return
        if has_goal:
            raise ValueError(
                "schedule goes with ratio: a goal is reached in one cut; give ratio in place of "
                "goal, or leave schedule out"
            )
        if n_of_m is not None:
            self.schedule.check_pattern(*n_of_m)

    def said(self, cut: str) -> str:
        """All of what a stage does, around what it cuts."""
        before = after = ""
        if self.sparsify is not None:
            before = f"train {_epochs(self.sparsify.epochs)} with a penalty on what may go, "
        if self.schedule is not None:
            plan = self.schedule
            after = f" in {plan.steps} steps ({plan.curve}) with {_epochs(plan.epochs)} between"
        return f"{before}{cut}{after}{f', then train {self.epochs} epochs' if self.epochs else ''}"


@dataclass(frozen=True)
class Step:
    """One of the cuts of a schedule.

    Args:
        number: from 1.
        of: how many there are.
        ratio: what is gone after it, of what came in.
        progress: the same as a share of what is gone after the last.
        n_of_m: the pattern after it, where there is one.
        incoming: the module before the first.
    """

    number: int
    of: int
    ratio: float
    progress: float
    n_of_m: tuple[int, int] | None
    incoming: nn.Module

    @property
    def name(self) -> str:
        """For sentences and histories."""
        return f"step {self.number} of {self.of}"

    @property
    def is_last(self) -> bool:
        """Whether no other follows."""
        return self.number == self.of

    def applied(self, request: ChannelPruning) -> ChannelPruning:
        """The request for it, from one that has its ratio and the settings of the stage."""
        layers = {name: self.progress * ratio for name, ratio in request.layer_ratios.items()}
        return replace(request, layer_ratios=layers, first_shapes=self.shapes)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the parameters before the first step, by name."""
        named = self.incoming.named_parameters(remove_duplicate=False)
        return {name: tuple(parameter.shape) for name, parameter in named}


@dataclass(frozen=True)
class Part:
    """One of several trainings of a stage; epochs are counted through all of them.

    Args:
        name: such as ``step 1 of 4``.
        epochs: of this one.
        before: epochs of the trainings before.
        after: epochs of those after it.
        since_cut: of the last, epochs since the first cut; else 0.
        penalty: added to the objective; ``None`` for none.
    """

    name: str
    epochs: int
    before: int
    after: int
    since_cut: int = 0
    penalty: Penalty | None = None

    @property
    def folder(self) -> str:
        """The name of the folder of its checkpoint."""
        return self.name.replace(" ", "-")

    @property
    def facts(self) -> list[object]:
        """What its checkpoint depends on, as JSON values."""
        penalty = None if self.penalty is None else [self.penalty.name, self.penalty.weight]
        return [self.name, self.before, self.after, penalty]

    def seed(self, seed: int) -> int:
        """A seed of its own, so that the first epochs of two trainings have different batches."""
        digest = hashlib.blake2b(f"{seed}/{self.name}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big")

    def placed(self, event: _Event, samples: int) -> _Event:
        """An event of this training among all.

        Args:
            event: as the loop has it.
            samples: of an epoch.
        """
        after_s = self.after * samples / max(event.samples_per_s, 1e-9)
        return replace(
            event,
            epoch=self.before + event.epoch,
            epochs=self.before + self.epochs + self.after,
            left_s=event.left_s + after_s,
        )


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count > 1)}"
