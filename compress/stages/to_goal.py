"""Cut to a goal, and train after it for as long as the metric keeps its bound."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from compress.candidate import Candidate
from compress.errors import AlreadySo, NoEffect, StageError
from compress.stage import Context
from compress.stages.goal_search import Cut, GoalSearch, Reached
from compress.stages.goals import Goal, costs_of
from compress.stages.score_loss import ScoreLoss

__all__ = ["cut_to_goal", "expected_cut"]

_MOST_TRAININGS = 4
_NEAR = 0.02  # of the ratio: a smaller step is not worth another training
_HALF = Cut(0.5)


def cut_to_goal(
    goal: Goal,
    incoming: Candidate,
    context: Context,
    make: Callable[[Cut], Candidate],
    train: Callable[[Candidate], Candidate],
    multiples: Sequence[int] = (1,),
    choose: Callable[[float], Mapping[str, float]] | None = None,
) -> Candidate:
    """The candidate cut to the goal and trained; less is cut where the metric loses too much.

    Args:
        goal: what is to be reached.
        incoming: what is cut.
        context: of the stage.
        make: cuts it, from the start; the last call is for the candidate that is returned.
        train: trains what was cut.
        multiples: of which widths may be; see :class:`.goal_search.GoalSearch`.
        choose: the ratios of single layers for a ratio, likewise.

    Raises:
        AlreadySo: it keeps the goal as it came in.
        NoEffect: nothing can be cut, nothing within ``max_drop``, or what is cut is not shown to be
            faster where time is asked for.
        StageError: no cut reaches the goal.
    """
    loss, allowed = ScoreLoss(incoming, context), math.inf
    if goal.max_drop is not None:
        allowed = loss.allowed(goal.max_drop, "goal.max_drop", relative=goal.relative)
    costs, said, cut = costs_of(goal, incoming, context.evaluator), "", None
    search = GoalSearch(goal, incoming, make, costs, multiples, choose)
    if context.processes.is_rank_zero:
        reached = search.run()
        _check_faster(goal, reached, context)
        said, cut = _landed(goal, reached, search.tries), reached.cut
    cut = _agreed(context, cut)
    made = make(cut)
    # Of what was cut: training is in place. Hashing all weights is for who may cut again.
    key = made.fingerprint if goal.max_drop is not None else ""
    trained = train(made)
    if goal.max_drop is not None and (lost := loss.of(trained)) > allowed:
        said += f", which loses {lost:.4g} of {loss.metric}"

        def cut_by(ratio: float) -> Cut:
            # Choosing looks at the device, which the first process alone does.
            own = search.cut(ratio) if context.processes.is_rank_zero else None
            return _agreed(context, own)

        cut, trained, more = _less(goal, allowed, loss, cut_by, make, train, cut, {key: lost})
        make(cut)
        said += f"; {more}"
        if context.processes.is_rank_zero:  # which alone measures
            said += f": {', '.join(cost.words for cost in costs(trained))}"
    return replace(trained, notes=(*trained.notes, said)) if said else trained


def expected_cut(
    goal: Goal, incoming: Candidate, context: Context, make: Callable[[Cut], Candidate]
) -> Cut:
    """About how much will be cut, without measuring: for ``plan``.

    Raises:
        StageError: no cut reaches the goal, where counting says so.
    """
    counted = goal.counted(incoming)
    if counted is None:
        return _HALF
    costs = costs_of(counted, incoming, context.evaluator)
    search = GoalSearch(counted, incoming, make, costs)
    try:
        return search.run().cut
    except StageError:
        if goal.measures:  # it was about something else
            return _HALF
        raise


def _less(
    goal: Goal,
    allowed: float,
    loss: ScoreLoss,
    cut_by: Callable[[float], Cut],
    make: Callable[[Cut], Candidate],
    train: Callable[[Candidate], Candidate],
    most: Cut,
    lost_by: dict[str, float],
) -> tuple[Cut, Candidate, str]:
    """The largest of a few smaller cuts that keeps ``max_drop``, trained, and what to say of it.

    ``lost_by`` is what a cut lost, by its fingerprint before training: where few blocks can go,
    many ratios make the same cut, which is trained once.
    """
    low, high, least = 0.0, most.ratio, math.inf
    best: tuple[Cut, Candidate, float] | None = None
    while len(lost_by) < _MOST_TRAININGS and high - low >= _NEAR:
        cut = replace(cut_by((low + high) / 2), round_to=most.round_to)
        try:
            made = make(cut)
        except (NoEffect, AlreadySo):  # so little that no channel goes
            low = cut.ratio
            continue
        key = made.fingerprint
        if key not in lost_by:
            trained = train(made)
            lost_by[key] = lost = loss.of(trained)
            least = min(least, lost)
            if lost <= allowed:
                best = (cut, trained, lost)
        if lost_by[key] <= allowed:
            low = cut.ratio
        else:
            high = cut.ratio
    if best is None:
        raise NoEffect(
            f"prune: the goal {goal.sentence}: every cut that was tried loses more than max_drop, "
            f"the least {least:.4g} of {loss.metric}; train longer after the cut, or allow more."
        )
    cut, trained, lost = best
    return (
        cut,
        trained,
        (
            f"{_size(cut)} is the largest that was tried and keeps max_drop, with "
            f"{-lost:+.4g} of {loss.metric} on validation"
        ),
    )


def _size(cut: Cut) -> str:
    return "a smaller choice" if cut.is_chosen else f"a ratio of {cut.ratio:.3g}"


def _check_faster(goal: Goal, reached: Reached, context: Context) -> None:
    """Refuse a cut that makes nothing faster where that is what it is for.

    Raises:
        NoEffect: the interval of its speedup is not above 1.
    """
    if not goal.parts:
        return
    found = context.evaluator.measure(reached.candidate, goal.parts)
    if found.speedup_ci95 is not None and found.speedup_ci95[0] <= 1:
        low, high = found.speedup_ci95
        raise NoEffect(
            f"prune: the goal {goal.sentence}: the cut that is nearest to it is not shown to be "
            f"faster ({found.speedup:.3g}x [{low:.3g}, {high:.3g}]); ask for more, or measure in "
            "a stricter mode."
        )


def _agreed(context: Context, cut: Cut | None) -> Cut:
    """The cut of the first process, in every process."""
    text = b"" if cut is None else json.dumps(asdict(cut)).encode()
    return Cut(**json.loads(context.processes.broadcast(text)))


def _landed(goal: Goal, reached: Reached, tries: int) -> str:
    near = (
        ""
        if reached.lands
        else ", the nearest that was found in the steps that structure and round_to allow"
    )
    cut = reached.cut
    own = f", and more of {len(cut.layers)} layers" if cut.layers else ""
    by = f"a ratio of {cut.ratio:.3g}{own}"
    if cut.is_chosen:
        able, went = len(cut.layers), sum(ratio > 0 for ratio in cut.layers.values())
        by = f"ratios of their own for {went} of {able} groups of layers"
    if cut.round_to > 1:
        by += f", in multiples of {cut.round_to}, in which the target computes faster"
    return (
        f"prune: for the goal {goal.sentence} {tries} cuts were tried; {by} gives "
        f"{reached.words}{near}"
    )
