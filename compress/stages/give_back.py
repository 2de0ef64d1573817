"""Give layers back to float32 until the metric keeps its bound: as few of them as needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from compress.candidate import Candidate
from compress.config.selectors import named
from compress.errors import NoEffect
from compress.stage import Context
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
) -> Candidate:
    """Quantize all but as few layers as keep ``max_drop``; a note says what was tried.

    Layers are ordered by the error that each alone makes in the outputs, and the first of them are
    given back: their number is doubled until the bound is kept, and halved in. Then each of a few
    is tried without.

    Args:
        incoming: what comes in.
        max_drop: what the metric may lose.
        context: of the stage.
        declare: the candidate with the stage's formats for all but these layers.
        relative: whether ``max_drop`` is a share of the score of what comes in.

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
    order = _by_error(incoming, whole, context)
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


def _by_error(incoming: Candidate, after: Candidate, context: Context) -> list[str]:
    """The layers whose formats change, the one with the largest error first."""
    changed = changed_formats(incoming, after)
    errors = errors_of_layers(after, changed, context)
    return sorted(changed, key=lambda name: errors.get(name, 0.0), reverse=True)


def _without_spare(layers: Sequence[str], keeps: Callable[[Sequence[str]], bool]) -> list[str]:
    """The layers less those without which the bound is kept as well; the last ones are tried."""
    needed = list(layers)
    for name in list(reversed(layers))[:_MOST_SINGLY]:
        fewer = [one for one in needed if one != name]
        if fewer and keeps(fewer):
            needed = fewer
    return needed
