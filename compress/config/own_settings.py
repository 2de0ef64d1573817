"""Blocks of a recipe that may name an own part, whose further keys then reach that part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from compress.config.own_parts import OwnPart, Problem, Role, described
from compress.config.recipe_text import Path
from compress.config.references import CodeReferences, is_reference
from compress.config.settings import Settings
from compress.errors import CodeReferenceError

__all__ = ["OwnSettings", "own_blocks", "refused", "validation_context"]


def validation_context(folder: Any, references: CodeReferences | None) -> dict[str, Any]:
    """The context that blocks of a recipe file are validated in.

    Args:
        folder: what relative paths are relative to.
        references: the code that may be followed; own parts are then checked at once, and else
            where they are used.
    """
    return {"folder": folder, "references": references}


class OwnSettings(Settings):
    """A block whose key ``named_by`` may be ``module:name``; keys beside its own reach the part.

    A subclass sets ``role``, and ``named_by``.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    #: What the part is called with.
    role: ClassVar[Role]
    #: The key that names the part.
    named_by: ClassVar[str] = "kind"

    @property
    def own(self) -> tuple[str, Role] | None:
        """The key that names an own part, and what this is called with; ``None`` for a built-in."""
        name = getattr(self, self.named_by)
        return (self.named_by, self.role) if name is not None and is_reference(name) else None

    @property
    def options(self) -> dict[str, Any]:
        """The keys that reach the part."""
        return dict(self.model_extra or {})

    @property
    def described(self) -> str:
        """What it names, with the options, for a sentence."""
        return described(str(getattr(self, self.named_by)), self.options)

    def part(self, references: CodeReferences, where: str) -> OwnPart:
        """The own part that it names.

        Raises:
            CodeReferenceError: code that was not allowed, or is not there.
        """
        assert self.own is not None
        key, role = self.own
        return OwnPart.named(getattr(self, key), references, where, role)

    def checked_options(
        self, references: CodeReferences, folder: Any = None
    ) -> tuple[dict[str, Any], list[Problem]]:
        """The options in the types that the part says, and what is wrong with the block."""
        assert self.own is not None
        key, _ = self.own
        try:
            part = self.part(references, key)
        except CodeReferenceError as error:
            text = str(error).removeprefix(f"{key}: ").removesuffix(".")
            return self.options, [Problem((key,), text)]
        if part.unusable:
            return self.options, [Problem((key,), part.unusable)]
        return part.checked(self.options, folder)

    @model_validator(mode="after")
    def _reach_their_part(self, info: ValidationInfo) -> OwnSettings:
        references = self.references(info)
        if references is not None:
            folder = (info.context or {}).get("folder")
            values, problems = self.checked_options(references, folder)
            if problems:
                raise refused(self, problems)
            self.take(values)
        return self

    def references(self, info: ValidationInfo) -> CodeReferences | None:
        """The references to check its part by; ``None`` where that is left to whoever uses it."""
        found: CodeReferences | None = (info.context or {}).get("references")
        if self.own is None or found is None:
            return None
        return found if found.can_import(getattr(self, self.own[0])) else None

    def take(self, options: Mapping[str, Any]) -> None:
        """Hold the options as they were read; for validators of the block alone."""
        held = self.model_extra
        if held is not None:
            held.clear()
            held.update(options)

    @model_serializer(mode="wrap")
    def _with_what_is_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A null is a value to the user's code, not its default, and must not be dropped.
        nulls = [option for option, value in (self.model_extra or {}).items() if value is None]
        return {**dict.fromkeys(nulls), **handler(self)}


def refused(block: BaseModel, problems: list[Problem]) -> ValidationError:
    """The error that validators raise, which has the places of the problems."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError("own_part", "{text}", {"text": one.text}),
            loc=one.path,
            input=_at(block, one.path),
        )
        for one in problems
    ]
    return ValidationError.from_exception_data(type(block).__name__, lines)


def own_blocks(settings: Any) -> Iterator[OwnSettings]:
    """The blocks in settings that name an own part, at any depth."""
    if isinstance(settings, OwnSettings) and settings.own is not None:
        yield settings
    if isinstance(settings, BaseModel):
        settings = [getattr(settings, name) for name in type(settings).model_fields]
    if isinstance(settings, Mapping):
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for one in settings:
            yield from own_blocks(one)


def _at(block: BaseModel, path: Path) -> Any:
    return getattr(block, str(path[0]), None) if path else None
