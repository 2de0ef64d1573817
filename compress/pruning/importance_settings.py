"""The importance that a recipe names: a criterion that is built in, or the user's own."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Discriminator,
    SerializerFunctionWrapHandler,
    Tag,
    WithJsonSchema,
    model_serializer,
)

from compress.config.fields import Name
from compress.config.own_parts import Role
from compress.config.own_settings import OwnSettings
from compress.config.references import CodeReferences, is_reference
from compress.pruning.importance import CRITERIA, Criterion, of_group

__all__ = ["Importance", "OwnImportance", "criterion_of", "described"]


class OwnImportance(OwnSettings):
    """A criterion of one's own: ``module:name``, or ``{kind: module:name, ...}`` with its keys.

    A function of a channel group (:mod:`compress.pruning.channel_group`) and the keys, or a class
    that is made of the keys and whose object is called with the group; it gives a score for each
    channel. With an attribute ``needs_gradients = True`` the group has gradients of the loss.
    """

    role: ClassVar[Role] = Role("importance", ("group",), ("kind",))

    kind: Name
    """The criterion, as ``module:name``."""

    @model_serializer(mode="wrap")
    def _as_it_is_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        return {**self.options, **handler(self)} if self.options else self.kind

    def criterion(self, references: CodeReferences) -> Criterion:
        """The criterion itself.

        Raises:
            RecipeError: options that it does not take.
            CodeReferenceError: code that was not allowed, is not there, or failed.
        """
        where = "prune: importance"
        part = self.part(references, where)
        function = part.bound(self.options, where)
        # A bound function hides its attributes.
        holder = function if part.own_class is not None else part.found
        needs = bool(getattr(holder, "needs_gradients", False))
        return Criterion(self.kind, of_group(self.kind, function), reads_gradients=needs)


def _read(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("kind"), str):
        if is_reference(value["kind"]):
            return value
        raise ValueError("a block is for an importance of your own, with kind: module:name")
    if isinstance(value, OwnImportance) or (isinstance(value, str) and value in CRITERIA):
        return value
    if isinstance(value, str) and is_reference(value):
        return {"kind": value}
    raise ValueError(f"should be {', '.join(CRITERIA)}, or module:name")


#: The name of a criterion, or one of the user's own.
Importance = Annotated[
    Annotated[str, Tag("built-in")] | Annotated[OwnImportance, Tag("own")],
    Discriminator(lambda value: "built-in" if isinstance(value, str) else "own"),
    BeforeValidator(_read),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "enum": [*CRITERIA],
                    "enumDescriptions": [criterion.about for criterion in CRITERIA.values()],
                    "type": "string",
                },
                {"pattern": ":", "type": "string"},
                {
                    "properties": {
                        "kind": {
                            "description": "A criterion of your own, as `module:name`; the keys "
                            "beside it are its options.",
                            "pattern": ":",
                            "type": "string",
                        }
                    },
                    "required": ["kind"],
                    "type": "object",
                },
            ]
        }
    ),
]


def criterion_of(importance: str | OwnImportance, references: CodeReferences) -> Criterion:
    """The criterion that a recipe names.

    Raises:
        RecipeError: options that one of the user's own does not take.
        CodeReferenceError: code that was not allowed, is not there, or failed.
    """
    if isinstance(importance, str):
        return CRITERIA[importance]
    return importance.criterion(references)


def described(importance: str | OwnImportance) -> str:
    """The importance with its options, for a sentence."""
    return importance if isinstance(importance, str) else importance.described
