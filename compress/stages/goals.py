"""What a cut is to reach, in place of how much it removes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.candidate import Candidate, count_parameters
from compress.config.drops import Drop
from compress.config.fields import Flag, Number
from compress.config.settings import Settings
from compress.errors import StageError
from compress.modules.inputs import Inputs, at_batch, forward
from compress.pruning.trace import in_float64
from compress.quantization.fakequant import layers_with_formats
from compress.quantization.stored import saved_bytes
from compress.stage import CandidateEvaluator, EvaluationPart

__all__ = ["Cost", "Goal", "costs_of", "count_macs"]

_LARGEST_GOAL = 1e12
#: How near to a goal a cut has to land, as a share of it: of what is timed, and of what is counted.
_TIMED, _COUNTED = 0.05, 0.03


class Goal(Settings):
    """What the model is to be after the stage; all that is given has to hold.

    How much goes is found by cutting, and by measuring the deployed model where time or file size
    is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_p50: Number | None = Field(default=None, gt=0, lt=1)
    """The median time of one inference on the first target, as a share of that of the model that
    comes in: 0.5 for twice as fast. Measured in pairs with it."""
    latency_p50_ms: Number | None = Field(default=None, gt=0, le=_LARGEST_GOAL)
    """The same in milliseconds."""
    macs: Number | None = Field(default=None, gt=0, le=_LARGEST_GOAL)
    """Multiply-accumulates of one sample: below 1 a share of those of the model that comes in, and
    else their number."""
    parameters: Number | None = Field(default=None, gt=0, le=_LARGEST_GOAL)
    """Parameters, likewise."""
    artifact_kib: Number | None = Field(default=None, gt=0, le=_LARGEST_GOAL)
    """Size of the deployed file in KiB, external data included."""
    max_drop: Drop | None = None
    """What the task's metric may lose on the validation split, of the deployed model against that
    of the one that comes in: a share of a rate, such as 0.01, or points of it, as ``1%`` or
    ``1pt``; of another metric, a number in its own unit. It comes before the rest: where the goal
    costs more, as much is cut as it allows."""
    relative: Flag = False
    """Whether ``max_drop`` is a share of the score of the model that comes in: 0.01, or ``1%``, of
    0.8 is then 0.008."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What identifies a goal that does not use it is what it was.
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if key != "relative" or value}

    @model_validator(mode="after")
    def _asks_for_something(self) -> Goal:
        asked = self.model_dump(exclude={"max_drop", "relative"}, exclude_none=True)
        if not asked:
            raise ValueError(
                "give what is to be reached: latency_p50, latency_p50_ms, macs, parameters or "
                "artifact_kib"
            )
        if self.relative and self.max_drop is None:
            raise ValueError("relative is about max_drop: give it, or leave relative out")
        if self.max_drop == 0:
            raise ValueError(
                "a max_drop of 0 leaves nothing to cut: scores are of samples, and move by one "
                "of them; give what may be lost, such as 0.5pt"
            )
        return self

    @property
    def parts(self) -> tuple[EvaluationPart, ...]:
        """What has to be measured of each cut that is tried."""
        timed = self.latency_p50 is not None or self.latency_p50_ms is not None
        return ("latency",) if timed else ()

    @property
    def measures(self) -> bool:
        """Whether something has to be lowered, timed or scored."""
        return bool(self.parts) or self.artifact_kib is not None or self.max_drop is not None

    def counted(self, incoming: Candidate) -> Goal | None:
        """What can be known of it by counting, where nothing can be measured; else ``None``.

        Time is taken to follow the multiply-accumulates, and a file its parameters, each in as
        many bytes as one of the model that comes in takes on average.
        """
        macs = [one for one in (self.macs, self.latency_p50) if one is not None]
        parameters = self.parameters
        if parameters is None and self.artifact_kib is not None:
            parameters = max(1.0, self.artifact_kib * 1024 / _bytes_each(incoming))
        if not macs and parameters is None:
            return None
        return Goal(macs=macs[0] if macs else None, parameters=parameters)

    @property
    def sentence(self) -> str:
        """As it was asked for: ``latency_p50 0.5, artifact_kib 40``."""
        asked = self.model_dump(exclude={"relative"}, exclude_none=True)
        share = " of the score" if self.relative else ""
        return ", ".join(f"{name} {value:g}" for name, value in asked.items()) + share


def _bytes_each(candidate: Candidate) -> float:
    """What one parameter takes in a file, on average over the formats of the layers."""
    parameters = count_parameters(candidate.module)[0]
    formats = candidate.numerics.resolve(layers_with_formats(candidate.module))
    saved = saved_bytes(candidate.module, formats)
    return max(1.0, 4 - saved / parameters) if parameters else 4.0


@dataclass(frozen=True)
class Cost:
    """One quantity of a candidate beside what it may be.

    Args:
        name: the key of the goal.
        value: of the candidate, in the unit of the goal.
        limit: what it is to be.
        tolerance: how far below the limit it may land, as a share.
    """

    name: str
    value: float
    limit: float
    tolerance: float

    @property
    def excess(self) -> float:
        """Above 1 where the limit is missed."""
        return self.value / self.limit

    @property
    def words(self) -> str:
        """``latency_p50 0.493 (goal 0.5)``."""
        return f"{self.name} {_number(self.value)} (goal {_number(self.limit)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def costs_of(
    goal: Goal, incoming: Candidate, evaluator: CandidateEvaluator
) -> Callable[[Candidate], list[Cost]]:
    """A function that tells what a candidate costs; it measures what the goal needs measured.

    Args:
        goal: what is asked for.
        incoming: what shares are of.
        evaluator: measures, where something has to be.

    Raises:
        StageError: the model has none of what is to become less; when called, also: a candidate
            could not be timed.
    """
    counted = list(_counted(goal, incoming))

    def costs(candidate: Candidate) -> list[Cost]:
        found = [Cost(name, count(candidate), limit, _COUNTED) for name, limit, count in counted]
        if goal.artifact_kib is not None:
            size = evaluator.measure(candidate, ()).artifact_bytes / 1024
            found.append(Cost("artifact_kib", size, goal.artifact_kib, _COUNTED))
        return found + [Cost(*one, _TIMED) for one in _timed(goal, candidate, incoming, evaluator)]

    return costs


def _counted(
    goal: Goal, incoming: Candidate
) -> Iterator[tuple[str, float, Callable[[Candidate], float]]]:
    counters: Mapping[str, tuple[float | None, Callable[[Candidate], float]]] = {
        "macs": (goal.macs, lambda one: float(count_macs(one.module, one.example))),
        "parameters": (goal.parameters, lambda one: float(count_parameters(one.module)[0])),
    }
    for name, (asked, count) in counters.items():
        if asked is not None:
            before = count(incoming)
            if not before:
                raise StageError(f"prune: the goal {name}: the model has none that are counted.")
            yield name, asked * before if asked < 1 else asked, count


def _timed(
    goal: Goal, candidate: Candidate, incoming: Candidate, evaluator: CandidateEvaluator
) -> Iterator[tuple[str, float, float]]:
    if not goal.parts:
        return
    found = evaluator.measure(candidate, goal.parts)
    before = evaluator.measure(incoming, goal.parts).latency_s
    if found.speedup is None or before is None:
        why = found.warnings[-1] if found.warnings else "the target gave no time"
        raise StageError(f"prune: a cut could not be timed for the goal: {why.rstrip('.')}.")
    share = 1 / found.speedup
    if goal.latency_p50 is not None:
        yield "latency_p50", share, goal.latency_p50
    if goal.latency_p50_ms is not None:
        # Both of one session, and the share paired within it: the machine drifts between sessions.
        yield "latency_p50_ms", 1e3 * before * share, goal.latency_p50_ms


@torch.no_grad()
def count_macs(module: nn.Module, example: Inputs) -> int:
    """Multiply-accumulates of one sample through convolutions, matrix products and attention."""
    # In double precision no kernel is fused, so that the products in recurrent layers count too.
    double, inputs = in_float64(module, at_batch(example, 1))
    with FlopCounterMode(display=False) as counter:
        forward(double, inputs)
    return int(counter.get_total_flops()) // 2
