"""A target of one's own in a recipe: ``{kind: module:name, ...}``, whose further keys reach it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compress.config.fields import Name
from compress.config.own_parts import Role
from compress.config.own_settings import OwnSettings
from compress.config.references import CodeReferences
from compress.errors import RecipeError
from compress.measure.target import Target

__all__ = ["OwnTargetSettings"]


class OwnTargetSettings(OwnSettings):
    """A target of one's own: a function that makes a ``Target`` of the keys, or such a class."""

    role: ClassVar[Role] = Role("target", reserved=("kind",), makes=True)

    kind: Name = Field(json_schema_extra={"pattern": ":"})
    """The function or class, as ``module:name``."""

    @property
    def name(self) -> str | None:
        """The name that the recipe gives it, if it does."""
        name = self.options.get("name")
        return None if name is None else str(name)

    def target(self, references: CodeReferences) -> Target:
        """The target itself.

        Args:
            references: the code that may be followed.

        Raises:
            RecipeError: options that it does not take, or it makes no target.
            CodeReferenceError: code that was not allowed, is not there, or failed.
        """
        where = f"target {self.kind!r}"
        made = self.part(references, where).product(self.options, Target, where)
        if not isinstance(made, Target):
            raise RecipeError(
                f"{where} must give a target, with the methods of compress.Target; got "
                f"{type(made).__name__}."
            )
        return made
