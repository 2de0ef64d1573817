"""Settings: what all blocks of a recipe are in Python, whose mistakes are told in a sentence."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import BaseModel, ValidationError

from compress.config.clauses import clauses
from compress.config.recipe_file import Document, sentence
from compress.errors import SettingsError
from compress.quoting import shown

__all__ = ["Settings"]


class Settings(BaseModel):
    """A block of a recipe, as an object: pydantic's model, with errors of this package.

    A recipe file is validated by pydantic as ever, and says file and line. Who calls the class gets
    the same sentence, with the name of the class in their place.

    Raises:
        SettingsError: a key that is not known or missing, or a value that it does not take.
    """

    def __init__(self, *given: object, **settings: Any) -> None:
        kind = type(self)
        if given:
            raise SettingsError(_by_name(kind, given[0]))
        try:
            super().__init__(**settings)
        except ValidationError as error:
            # Without the cause, which a notebook would print above the sentence.
            raise _refused(kind, settings, error) from None

    # With the mark of pydantic's own, blocks inside of a block do not come here: their errors keep
    # their places, and the context of a recipe reaches them. Signatures stay those of the fields.
    functools.update_wrapper(__init__, BaseModel.__init__)

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError:
            kind = type(self).__name__
            raise SettingsError(
                f"{kind}: {name}: it cannot be set, since what a recipe holds stays as it is; make "
                f"another: model_copy(update={{{name!r}: ...}})."
            ) from None


def _by_name(kind: type[BaseModel], given: object) -> str:
    # The first that must be given, or else the first that is its own.
    names = sorted(kind.model_fields, key=lambda name: not kind.model_fields[name].is_required())
    names = [name for name in names if name not in ("kind", "label", "schema_")]
    example = f", as in {kind.__name__}({names[0]}=...)" if names else ""
    return f"{kind.__name__} takes its settings by name{example}; got {shown(given)} without one."


def _refused(
    kind: type[BaseModel], settings: dict[str, Any], error: ValidationError
) -> SettingsError:
    refused = SettingsError(sentence(Document(settings, kind.__name__, {}), error, (), kind))
    refused.problems = tuple(clauses(error))
    return refused
