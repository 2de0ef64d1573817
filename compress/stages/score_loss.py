"""What a stage costs in score, of the deployed model on the validation split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from compress.budget import absolute_drop, check_drop
from compress.candidate import Candidate
from compress.stage import Context, Evaluation, EvaluationPart

__all__ = ["ScoreLoss"]

_SCORE: tuple[EvaluationPart, ...] = ("score",)


@dataclass(frozen=True)
class ScoreLoss:
    """How much worse candidates score than the one that came in; the same in every process.

    Args:
        incoming: the candidate that came in.
        context: of the stage.
    """

    incoming: Candidate
    context: Context

    @property
    def metric(self) -> str:
        """Its name; empty in processes other than the first."""
        return self._before.metric if self.context.processes.is_rank_zero else ""

    def allowed(self, drop: float, where: str, *, relative: bool = False) -> float:
        """What may be lost, in the unit of the metric; the same in every process.

        Args:
            drop: as it was given.
            where: the key, for the sentence.
            relative: whether it is a share of the score of what came in.

        Raises:
            RecipeError: a drop that cannot have been meant for this metric: all of a rate, or
                points of what is none.
        """
        processes, found = self.context.processes, float(drop)
        if processes.is_rank_zero:
            check_drop(drop, self.metric, where, relative=relative)
            found = absolute_drop(drop, _score(self._before)) if relative else found
        return float(json.loads(processes.broadcast(json.dumps(found).encode())))

    def of(self, candidate: Candidate) -> float:
        """How much is lost, in the unit of the metric: below 0 where it is better."""
        processes, lost = self.context.processes, 0.0
        if processes.is_rank_zero:
            after = self.context.evaluator.measure(candidate, _SCORE)
            lost = _score(self._before) - _score(after)
            lost = lost if after.higher_is_better else 0.0 - lost
        return float(json.loads(processes.broadcast(json.dumps(lost).encode())))

    @cached_property
    def _before(self) -> Evaluation:
        return self.context.evaluator.measure(self.incoming, _SCORE)


def _score(found: Evaluation) -> float:
    assert found.score is not None, "it was asked for"
    return found.score
