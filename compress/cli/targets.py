"""``--target``: the device that a command is about, as written on the command line."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from compress.errors import RecipeError
from compress.measure.recipe_targets import KINDS, spelled
from compress.measure.target import Target
from compress.measure.target_kind import TargetKind

__all__ = ["target_of"]

# The options of the command line that only some kinds of target have, by the setting.
_OPTIONS = {
    "runtime": "runtime",
    "provider": "provider",
    "python": "python",
    "folder": "folder",
    "config": "ssh_config",
}


def target_of(arguments: argparse.Namespace) -> Target:
    """The target that ``--target`` and the options beside it describe.

    Raises:
        RecipeError: there is no target of that form, or an option is not for it.
    """
    kind, place = _kind_and_place(arguments.target)
    settings = _settings(arguments, kind)
    try:
        return kind.from_command_line(place, settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        raise RecipeError(f"--target {arguments.target}: {where}{message}.") from error


def _kind_and_place(given: str) -> tuple[type[TargetKind], str]:
    name, colon, place = given.partition(":")
    kind = next((kind for kind in KINDS if kind.kind_name() == name), None)
    takes = kind is not None and bool(kind.place)
    needs = takes and kind is not None and kind.is_place_needed
    if kind is None or bool(colon) != bool(place) or (place and not takes) or (needs and not place):
        forms = spelled([kind.spelling() for kind in KINDS])
        raise RecipeError(f"--target is {forms}; got {given!r}.")
    return kind, place


def _settings(arguments: argparse.Namespace, kind: type[TargetKind]) -> dict[str, object]:
    settings = {"threads": arguments.threads, "batch": arguments.batch}
    for setting, option in _OPTIONS.items():
        value = getattr(arguments, option)
        if value is None:
            continue
        if setting not in kind.options:
            able = [each.kind_name() for each in KINDS if setting in each.options]
            raise RecipeError(
                f"--{option.replace('_', '-')} is for targets of kind {' and '.join(able)}; got "
                f"--target {arguments.target}."
            )
        settings[setting] = value
    return settings
