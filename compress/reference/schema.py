"""The JSON Schema of recipe files, with what the settings say of themselves.

It is made of the settings' models. What is kept of it beside this file is what ``compresskit
explain`` reads, since making it takes torch and seconds.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from compress.config.docstrings import attribute_docs, before_sections, in_markdown, summary
from compress.recipe import Recipe
from compress.stages import STAGES

__all__ = ["recipe_schema", "schema_text"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OWN_STAGE = {
    "type": "object",
    "description": "A stage of your own: a function or class that the run names with `--import`.",
    "properties": {
        "kind": {
            "type": "string",
            "pattern": ":",
            "description": "The function or class, as `module:name`; the keys beside it are its "
            "options.",
        }
    },
}


class _Described(GenerateJsonSchema):
    """Says of every key what the docstring below its field says."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """The schema of one model."""
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        about = in_markdown(before_sections(inspect.getdoc(model) or ""))
        docs = attribute_docs(model)
        for name, field in model.model_fields.items():
            key = made.get("properties", {}).get(field.alias or name)
            if key is not None:
                # The kind of a block is the block itself.
                is_kind = name == "kind" and "const" in key
                text = f"{summary(about)}." if is_kind else docs.get(name)
                key.update({"description": text} if text else {})
        keys = made.get("properties", {})
        fields = model.model_fields
        annotated = [name for name in inspect.get_annotations(model) if name in fields]
        own = [fields[name].alias or name for name in annotated]
        first = [name for name in own if name in keys]
        ordered = {name: keys[name] for name in dict.fromkeys((*first, *keys))}
        return {**made, "description": about, "properties": ordered}


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe file, with one branch for each kind of stage."""
    models: list[type[BaseModel]] = [Recipe, *STAGES]
    refs, definitions = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_Described
    )
    parts = definitions["$defs"]
    schema: dict[str, Any] = dict(parts.pop("Recipe"))
    parts.pop("Stage")  # of any kind; its branches stand in its place
    schema["$schema"] = _DIALECT
    schema["$defs"] = parts
    for stage in STAGES:
        parts[stage.__name__]["required"] = ["kind"]
    branches = [refs[(stage, "validation")] for stage in STAGES]
    keys = schema["properties"]
    keys["stages"]["items"] = {"anyOf": [*branches, _OWN_STAGE]}
    schema["required"] = ["schema", "name", "task", "model", "stages"]
    named = parts["TaskConfig"]["properties"]["name"]
    keys["task"] = {"anyOf": [named, keys["task"]], "description": keys["task"]["description"]}
    return schema


def schema_text() -> str:
    """The schema as ``compresskit schema`` prints it and as it is kept."""
    return json.dumps(recipe_schema(), indent=1) + "\n"
