"""Give layers back to float32 until the metric keeps its bound: as few of them as needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from compress.candidate import Candidate
from compress.config.selectors import named
from compress.errors import MeasurementError, NoEffect
from compress.stage import Context, TimesLayers
from compress.stages.layer_errors import changed_formats, errors_of_layers
from compress.stages.score_loss import ScoreLoss

__all__ = ["give_back"]

_MOST_SINGLY = 8  # layers that are tried again one by one


def give_back(
    incoming: Candidate,
    max_drop: float,
    context: Context,
    declare: Callable[[Sequence[str]], Candidate],
    *,
    relative: bool = False,
    by_time: bool = False,
) -> Candidate:
    """Quantize all but as few layers as keep ``max_drop``; a note says what was tried.

    Layers are ordered by the error that each alone makes in the outputs, or by that for the time
    that it wins, and the first of them are
    given back: their number is doubled until the bound is kept, and halved in. Then each of a few
    is tried without.

    Args:
        incoming: what comes in.
        max_drop: what the metric may lose.
        context: of the stage.
        declare: the candidate with the stage's formats for all but these layers.
        relative: whether ``max_drop`` is a share of the score of what comes in.
        by_time: whether layers go back by the error for each second that they win.

    Raises:
        NoEffect: the bound is kept only where nothing is quantized.
        RecipeError: a drop that cannot have been meant for this metric.
    """
    loss = ScoreLoss(incoming, context)
    allowed = loss.allowed(max_drop, "max_drop", relative=relative)
    whole = declare(())
    first = loss.of(whole)
    share = f" of the score, which is {allowed:.4g}" if relative else ""
    said = f"quantize: max_drop {max_drop:g}{share}: all layers lose {first:.4g} of {loss.metric}"
    if first <= allowed:
        return replace(whole, notes=(f"{said} on validation, and none was given back",))
    order, how = _order(incoming, whole, context, by_time=by_time)
    said += how
    lost = {0: first}

    def keeps(count: int) -> bool:
        if count not in lost:
            lost[count] = loss.of(declare(order[:count]))
        return lost[count] <= allowed

    few, many = 0, 1
    while many < len(order) and not keeps(many):
        few, many = many, min(2 * many, len(order))
    if many == len(order):
        # With nothing quantized there is nothing to lose, and nothing was done.
        many -= 1
        if many == 0 or not keeps(many):
            raise NoEffect(
                f"{said}, and no selected layer can be quantized within it: with {order[-1]!r} "
                f"alone {lost[many]:.4g} is lost; allow more, or take a finer format."
            )
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if keeps(middle) else (middle, many)
    given = _without_spare(order[:many], lambda layers: loss.of(declare(layers)) <= allowed)
    kept = declare(given)
    note = (
        f"{said}; given back to what they were: {named(given)} "
        f"({len(given)} of {len(order)} layers), and {loss.of(kept):.4g} is lost"
    )
    return replace(kept, notes=(note,))


def _order(
    incoming: Candidate, after: Candidate, context: Context, *, by_time: bool
) -> tuple[list[str], str]:
    """The layers whose formats change, those to give back first, and what to say of the order."""
    changed = changed_formats(incoming, after)
    errors = errors_of_layers(after, changed, context)
    if not by_time:
        return sorted(changed, key=lambda name: errors.get(name, 0.0), reverse=True), ""
    try:
        won = _seconds_won(after, list(changed), context)
    except MeasurementError as error:
        why = str(error).rstrip(".")
        order, _ = _order(incoming, after, context, by_time=False)
        return order, f"; layers could not be timed ({why}), and go by their errors alone"

    def cost(name: str) -> tuple[bool, float]:
        error, seconds = errors.get(name, 0.0), won.get(name, 0.0)
        # What wins no time costs none to give back; of such layers the error alone counts.
        return seconds <= 0, error / seconds if seconds > 0 else error

    wins = sum(won.get(name, 0.0) > 0 for name in changed)
    said = f"; {wins} of {len(changed)} layers win time, and go by their errors for it"
    return sorted(changed, key=cost, reverse=True), said


def _seconds_won(after: Candidate, layers: Sequence[str], context: Context) -> Mapping[str, float]:
    if not isinstance(context.evaluator, TimesLayers):
        raise MeasurementError("nothing times layers here.")
    found = context.evaluator.layer_seconds(after, layers)
    return {layer: found.before[layer] - seconds for layer, seconds in found.after.items()}


def _without_spare(layers: Sequence[str], keeps: Callable[[Sequence[str]], bool]) -> list[str]:
    """The layers less those without which the bound is kept as well; the last ones are tried."""
    needed = list(layers)
    for name in list(reversed(layers))[:_MOST_SINGLY]:
        fewer = [one for one in needed if one != name]
        if fewer and keeps(fewer):
            needed = fewer
    return needed
