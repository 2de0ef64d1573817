"""``--target``: the device that a command is about, as written on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from compress.errors import RecipeError
from compress.measure.local import LocalTarget
from compress.measure.remote.target import AdbTarget, SshTarget
from compress.measure.target import Target

__all__ = ["target_of"]

_FORMS = "--target is local, ssh:HOST or adb[:SERIAL]"

# By the name of the setting: the option, and the kinds of target that it is for.
_OPTIONS = {
    "runtime": ("runtime", ("local",)),
    "provider": ("provider", ("local",)),
    "python": ("python", ("ssh", "adb")),
    "folder": ("folder", ("ssh", "adb")),
    "config": ("ssh_config", ("ssh",)),
}


def target_of(arguments: argparse.Namespace) -> Target:
    """The target that ``--target`` and the options beside it describe.

    Raises:
        RecipeError: there is no target of that form, or an option is not for it.
    """
    kind, colon, name = arguments.target.partition(":")
    named = {"local": (False,), "ssh": (True,), "adb": (False, True)}.get(kind, ())
    if bool(name) not in named or bool(colon) != bool(name):
        raise RecipeError(f"{_FORMS}; got {arguments.target!r}.")
    settings = _settings(arguments, kind)
    try:
        return _made(kind, name, settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        raise RecipeError(f"--target {arguments.target}: {where}{message}.") from error


def _settings(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    settings = {"threads": arguments.threads, "batch": arguments.batch}
    for setting, (option, kinds) in _OPTIONS.items():
        value = getattr(arguments, option)
        if value is not None and kind not in kinds:
            raise RecipeError(
                f"--{option.replace('_', '-')} is for targets of kind {' and '.join(kinds)}; got "
                f"--target {arguments.target}."
            )
        if value is not None:
            settings[setting] = value
    return settings


def _made(kind: str, name: str, settings: Mapping[str, Any]) -> Target:
    if kind == "ssh":
        return SshTarget.model_validate({**settings, "host": name})
    if kind == "adb":
        return AdbTarget.model_validate({**settings, "serial": name or None})
    return LocalTarget.model_validate(settings)
