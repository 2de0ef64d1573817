"""What schemas say of choices: of each value of a key, and of keys that depend on a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from compress.config.docstrings import summary

__all__ = ["Choices", "with_variants"]


@dataclass(frozen=True)
class Choices:
    """Annotates a key whose choices have descriptions, which editors show beside each.

    Args:
        about: gives those descriptions, in the order of the choices.
    """

    about: Callable[[], Sequence[str]]

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema of the choices, with what each is."""
        return {**handler(core_schema), "enumDescriptions": list(self.about())}


def with_variants(
    schema: Mapping[str, Any], key: str, variants: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The JSON Schema of a block whose further keys are those of the part that ``key`` names.

    Args:
        schema: of the block itself.
        key: names a built-in part, or code of the user's own.
        variants: the schema of the further keys, by the name of the part.
    """
    summaries = [summary(str(one["description"])) for one in variants.values()]
    named = {
        "anyOf": [
            {"enum": [*variants], "enumDescriptions": summaries, "type": "string"},
            {"pattern": ":", "type": "string"},
        ]
    }
    properties = {**schema["properties"], key: {**schema["properties"][key], **named}}
    branches = [
        {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": {**one}}
        for name, one in variants.items()
    ]
    return {**schema, "properties": properties, "allOf": branches}
