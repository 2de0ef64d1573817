"""The control ``strength`` of effects: a number from 0 to 1, and the only one that they have."""

from __future__ import annotations

from collections.abc import Mapping

from compress.errors import RecipeError

__all__ = ["strength_of"]

_CONTROL = "strength"


def strength_of(controls: Mapping[str, float], effect: str, default: float) -> float:
    """The strength that an effect is asked for.

    Args:
        controls: that it is given.
        effect: its name, for sentences.
        default: where it is given none.

    Raises:
        RecipeError: another control, or a strength beyond 0 and 1.
    """
    if unknown := [name for name in controls if name != _CONTROL]:
        raise RecipeError(
            f"the effect {effect} has the control {_CONTROL} alone; it was given {unknown[0]}."
        )
    strength = float(controls.get(_CONTROL, default))
    if not 0 <= strength <= 1:
        raise RecipeError(
            f"the effect {effect}: {_CONTROL} is from 0 to 1; it was given {strength:g}."
        )
    return strength
