"""Annotations of the user's code, as types of keys in a recipe.

A value is read as strictly as the recipe's own numbers (:mod:`compress.config.fields`): ``true`` is
no number, text is none, and what is not finite is none. Annotations that no YAML can give, such as
a tensor, are not checked.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticSerializationError, to_json

from compress.config.clauses import clauses
from compress.config.recipe_file import RecipePath

__all__ = ["Key", "keys_of_model", "types_of"]

#: Where in a value, and a clause.
_Wrong = tuple[tuple[int, ...], str]


@dataclasses.dataclass(frozen=True)
class Key:
    """One key that a part takes.

    Args:
        name: of it.
        annotation: the type of its values; anything goes for ``Any``.
        is_required: whether it has no default.
        default: of it, where it has one.
    """

    name: str
    annotation: Any = Any
    is_required: bool = False
    default: Any = None

    def read(self, value: Any, folder: FilePath | None) -> tuple[Any, list[_Wrong]]:
        """The value in the type of the annotation, and what is wrong with it.

        Paths of plain data are relative to ``folder``.
        """
        wrong = [
            (place, f"should be a finite number; got {number}")
            for place, number in _infinite(value)
        ]
        if wrong or self._adapter is None:
            return value, wrong
        if value is None and self.default is None and not self.is_required:
            return value, []  # as Python takes it: x: int = None
        context = {"folder": None if isinstance(value, FilePath) else folder}
        try:
            return self._read_by(self._adapter, value, context), []
        except PydanticSerializationError:  # an object, of a recipe that was made in Python
            return value, []
        except ValidationError as error:
            return value, [
                (tuple(part for part in place if isinstance(part, int)), text)
                for place, text in clauses(error)[:1]
            ]

    def _read_by(self, adapter: TypeAdapter[Any], value: Any, context: dict[str, Any]) -> Any:
        first = get_args(self.annotation)[1:] if get_origin(self.annotation) is Annotated else ()
        if any(isinstance(one, (BeforeValidator, WrapValidator, PlainValidator)) for one in first):
            return adapter.validate_python(value, context=context)  # it knows what it takes
        # JSON, since strict means there what it does in YAML: a list may be a tuple.
        text = to_json(value, inf_nan_mode="constants")
        return adapter.validate_json(text, strict=True, context=context)

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any] | None:
        return None if self.annotation is Any else _adapter_of(self.annotation)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of its values."""
        found = {} if self._adapter is None else self._adapter.json_schema()
        # It becomes a part of another schema, which has definitions of its own.
        defined = found.pop("$defs", {})
        inlined: dict[str, Any] = _inlined(found, defined)
        return inlined


def types_of(found: Any) -> dict[str, Any]:
    """The annotations of a function's or a class's parameters; none where they cannot be read."""
    if isinstance(found, type):
        plain = found.__init__ is object.__init__  # type: ignore[misc]
        found = found.__new__ if plain else found.__init__  # type: ignore[misc]
    elif not inspect.isroutine(found):
        found = type(found).__call__
    try:
        hints = typing.get_type_hints(found, include_extras=True)
    except Exception:  # of names that are there for checkers alone
        return {}
    hints.pop("return", None)
    return {
        name: hint.type if isinstance(hint, dataclasses.InitVar) else hint
        for name, hint in hints.items()
    }


def keys_of_model(model: type[BaseModel]) -> dict[str, Key]:
    """The keys of a pydantic model, with the types and bounds of its fields."""
    keys = {}
    for name, one in model.model_fields.items():
        named = one.alias or name
        default = None if one.default_factory else one.default
        bounded = functools.reduce(_annotated, one.metadata, _located(one.annotation))
        keys[named] = Key(named, bounded, one.is_required(), default)
    return keys


def _inlined(schema: Any, defined: Mapping[str, Any]) -> Any:
    """A schema with what it refers to in the place of the references."""
    if isinstance(schema, list):
        return [_inlined(one, defined) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found = defined[schema["$ref"].rpartition("/")[2]]
        return _inlined({**found, **{k: v for k, v in schema.items() if k != "$ref"}}, defined)
    return {key: _inlined(value, defined) for key, value in schema.items()}


def _annotated(annotation: Any, bound: Any) -> Any:
    return Annotated[annotation, bound]


def _adapter_of(annotation: Any) -> TypeAdapter[Any] | None:
    annotation = _located(annotation)
    for config in (ConfigDict(allow_inf_nan=False), None):  # a model has its own
        try:
            return TypeAdapter(annotation, config=config)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
            return None
        except PydanticUserError:
            continue
    return None


def _located(annotation: Any) -> Any:
    """The annotation with paths that are relative to the recipe."""
    if annotation is FilePath:
        return RecipePath
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, typing.Literal) or not inside:
        return annotation
    found = tuple(_located(one) for one in inside)
    if found == inside:
        return annotation
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, found)
    return types.GenericAlias(origin, found)


def _infinite(value: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], float]]:
    """The numbers in plain data that are not finite, with their places in lists."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _infinite(one, place)
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _infinite(one, (*place, index))
