"""What a stage costs in score, of the deployed model on the validation split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from compress.budget import check_drop
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

    def check(self, allowed: float, where: str) -> None:
        """Refuse a drop that cannot have been meant for this metric.

        Raises:
            RecipeError: all of a rate may be lost, or points of what is none.
        """
        if self.context.processes.is_rank_zero:
            check_drop(allowed, self.metric, where)

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
