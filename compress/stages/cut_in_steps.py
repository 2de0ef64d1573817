"""Cut in steps, and train after each: what goes is ranked anew on what training has left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from compress.candidate import Candidate, count_parameters
from compress.errors import AlreadySo, NoEffect
from compress.events import Widths, parse_event
from compress.pruning.channels import ChannelPruning, Pruned
from compress.pruning.widths import Width
from compress.stage import Context
from compress.stages.prune_schedule import CutSchedule, Part, Step

__all__ = ["cut_in_steps", "said_of_step", "steps_of"]

#: Cuts a candidate as far as a step says; what it reports of widths is not the stage's yet.
_Make = Callable[[Candidate, Context, Step], Candidate]
_Train = Callable[[Candidate, Part], Candidate]


def steps_of(
    schedule: CutSchedule, ratio: float, n_of_m: tuple[int, int] | None, incoming: nn.Module
) -> list[Step]:
    """The cuts of a schedule.

    Args:
        schedule: as the recipe has it.
        ratio: what is gone after the last, of what comes in.
        n_of_m: the pattern after the last, in place of ``ratio``; ``None`` for none.
        incoming: the module before the first.
    """
    patterns: Sequence[tuple[int, int] | None] = [None] * schedule.steps
    if n_of_m is not None:
        patterns = schedule.patterns(*n_of_m)
    return [
        Step(number, schedule.steps, share, share / ratio, pattern, incoming)
        for number, (share, pattern) in enumerate(
            zip(schedule.shares(ratio), patterns, strict=True), start=1
        )
    ]


def said_of_step(step: Step) -> Callable[[Pruned, ChannelPruning], str]:
    """A short sentence on one cut, as :func:`compress.stages.cut_channels.cut_channels` takes."""

    def sentence(done: Pruned, _: ChannelPruning) -> str:
        able = [width for width in done.widths if not width.is_output]
        lost, left = sum(w.before - w.after for w in able), sum(w.after for w in able)
        text = f"{step.name}, to {step.ratio:.3g}: removed {lost:,} channels, and {left:,} are left"
        if done.restored:
            text += f"; a scale that follows from a width was restored {done.restored} times"
        return text

    return sentence


def cut_in_steps(
    steps: Sequence[Step],
    parts: Sequence[Part],
    incoming: Candidate,
    context: Context,
    whole: ChannelPruning | None,
    make: _Make,
    train: _Train,
) -> Candidate:
    """The candidate after the last step and the training after it.

    A step so small that nothing goes is followed by its training all the same, as long as all steps
    together remove something.

    Args:
        steps: the cuts.
        parts: the training after each.
        incoming: what is cut.
        context: of the stage.
        whole: what all steps together are to remove of channels; ``None`` for single weights.
        make: cuts, from a fork.
        train: trains what was cut, in place.

    Raises:
        NoEffect: nothing can be cut.
        StageError: the criterion cannot rank this module.
    """
    widths: list[tuple[Width, ...]] = []
    quiet = replace(context, report=lambda event: _take(event, widths, context))
    now, clauses, notes = incoming, list[str](), list[str]()
    for step, part in zip(steps, parts, strict=True):
        try:
            # What an earlier step declared of its zeros, this one goes beyond.
            made = make(replace(now, invariants=incoming.invariants, notes=()), quiet, step)
            clause, *others = _said(step, now, made) if whole is None else made.notes
        except NoEffect:
            if step.number == 1 and (same := _already_so(incoming, context, make, steps[-1])):
                return train(replace(incoming.fork(), notes=(same,)), parts[-1])
            made, others = now.fork(), []
            clause = f"{step.name}, to {step.ratio:.3g}: removed nothing"
        now = train(replace(made, notes=()), part)
        clauses.append(clause.removeprefix("prune: "))
        notes += (*others, *now.notes)
    # One note: a report takes notes that differ in their numbers alone for one.
    notes.insert(0, f"prune: {'; '.join(clauses)}")
    if widths and whole is not None:
        total = _in_all(widths)
        context.report(Widths(whole.ratio, [asdict(width) for width in total]))
        notes.insert(0, f"prune: {Pruned(total).sentence(whole)}")
    return replace(now, notes=tuple(dict.fromkeys(notes)))


def _already_so(incoming: Candidate, context: Context, make: _Make, last: Step) -> str:
    """A clause where all steps together would change nothing since all of it is gone already.

    Raises:
        NoEffect: nothing can be cut.
    """
    try:
        make(incoming, replace(context, report=lambda _: None), last)
    except AlreadySo as error:
        return str(error).rstrip(".")
    return ""


def _take(event: Mapping[str, Any], widths: list[tuple[Width, ...]], context: Context) -> None:
    """Keep what a step reports of widths, and hand all else on."""
    match parse_event(event):
        case Widths(layers=layers):
            widths.append(tuple(Width(**layer) for layer in layers))
        case _:
            context.report(event)


def _in_all(widths: Sequence[Sequence[Width]]) -> tuple[Width, ...]:
    """What became of each layer from the first step to the last."""
    first: dict[str, list[int]] = {}
    for width in widths[0]:
        first.setdefault(width.layer, []).append(width.before)
    # A layer may have several axes, in one order.
    return tuple(
        replace(last, before=first[last.layer].pop(0) if first.get(last.layer) else last.before)
        for last in widths[-1]
    )


def _said(step: Step, before: Candidate, after: Candidate) -> tuple[str, ...]:
    """How many weights a cut set to zero, and its notes."""
    old, (total, new) = count_parameters(before.module)[1], count_parameters(after.module)
    to = f"{step.ratio:.3g}" if step.n_of_m is None else "{}:{}".format(*step.n_of_m)
    text = (
        f"{step.name}, to {to}: set {old - new:,} more weights to zero, and {total - new:,} of "
        f"{total:,} parameters are zero"
    )
    return text, *after.notes
