"""Sparse learning: a training that drives what a cut will remove towards zero before it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from compress.candidate import Candidate
from compress.errors import NoEffect
from compress.pruning.channels import ChannelPruning, find_cut
from compress.pruning.importance import CRITERIA, Criterion
from compress.pruning.penalties import Penalty, PenaltyKind, channel_penalty, weight_penalty
from compress.pruning.sparsity import zero_tensors
from compress.stages.prune_schedule import Part, Sparsify
from compress.stages.zero_weights import ZeroWeights, masks_of

__all__ = ["Shrinking", "SparseLearning", "shrinking_of"]


@dataclass(frozen=True)
class Shrinking:
    """What a training is to shrink.

    Args:
        penalty: on what the cut may remove.
        share: of the norm of that, which the cut would remove without the training; ``None`` where
            it depends on data.
    """

    penalty: Penalty
    share: float | None


def shrinking_of(
    sparsify: Sparsify,
    kind: PenaltyKind,
    candidate: Candidate,
    request: ChannelPruning | ZeroWeights,
    criterion: Criterion,
) -> Shrinking:
    """The penalty on what a cut may remove, and what the cut would remove as it is.

    Args:
        sparsify: as the recipe has it.
        kind: of the penalty.
        candidate: what is trained.
        request: the cut.
        criterion: ranks what goes.

    Raises:
        NoEffect: nothing can be cut.
        StageError: the penalty has nothing to shrink.
    """
    module, cut, is_known = candidate.module, candidate.fork(), criterion.by_magnitude
    if isinstance(request, ZeroWeights):
        weights = request.weights(module)
        if not weights:
            raise NoEffect("prune: there is no weight that may be set to zero; ignore less.")
        penalty = weight_penalty(sparsify.weight, list(weights))
        chosen = masks_of(module, weights, request, CRITERIA["l1"])
        zero_tensors(cut.module, chosen.masks)
    else:
        is_known |= criterion.reads_batch_norm
        if not is_known:
            # Which channels may go does not depend on how they are ranked.
            request = replace(request, importance=CRITERIA["group-l2"])
        found = find_cut(module, candidate.example, request, module)
        penalty = channel_penalty(kind, sparsify.weight, module, found)
        found.apply(cut.module)
    return Shrinking(penalty, penalty.share_of_cut(module, cut.module) if is_known else None)


@dataclass
class SparseLearning:
    """The training before a cut, and what there is to say of it once the cut is made.

    Args:
        sparsify: as the recipe has it.
        shrinking: what it is to do.
        candidate: after the training.
        before: the penalty when it began.
        after: the penalty when it ended.
    """

    sparsify: Sparsify
    shrinking: Shrinking
    candidate: Candidate
    before: float
    after: float
    _share: float | None = field(default=None, init=False)

    @classmethod
    def trained(
        cls,
        sparsify: Sparsify,
        shrinking: Shrinking,
        incoming: Candidate,
        after: int,
        train: Callable[[Candidate, Part], Candidate],
    ) -> SparseLearning:
        """Train a fork of a candidate.

        Args:
            sparsify: as the recipe has it.
            shrinking: what it is to do.
            incoming: is left as it is.
            after: epochs of training that follow in the stage.
            train: trains in place.
        """
        penalty = shrinking.penalty
        part = Part("sparsify", sparsify.epochs, 0, after, penalty=penalty)
        made = train(incoming.fork(), part)
        ends = _value(penalty, incoming.module), _value(penalty, made.module)
        return cls(sparsify, shrinking, made, *ends)

    def take(self, cut: Candidate) -> None:
        """See what the first cut of the trained candidate, or the last that is tried, removed."""
        self._share = self.shrinking.penalty.share_of_cut(self.candidate.module, cut.module)

    def told(self, made: Candidate) -> Candidate:
        """The candidate that the stage made, with a note on this training."""
        epochs, name = self.sparsify.epochs, self.shrinking.penalty.name
        text = (
            f"sparsify: {name} went from {self.before:.4g} to {self.after:.4g} in {epochs} "
            f"epoch{'s' * (epochs > 1)}"
        )
        if self._share is not None:
            text += f"; what was cut next held {self._share:.3g} of the norm of all that may be cut"
            if self.shrinking.share is not None:
                text += f" ({self.shrinking.share:.3g} if cut before the training)"
        return replace(made, notes=tuple(dict.fromkeys((text, *self.candidate.notes, *made.notes))))


def _value(penalty: Penalty, module: nn.Module) -> float:
    return float(penalty.value(module).detach())
