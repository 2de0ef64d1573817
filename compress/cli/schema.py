"""``compresskit schema``: the JSON Schema of recipe files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from compress.recipe import Recipe
from compress.stages import STAGES


def run(_: argparse.Namespace) -> int:
    """Run the command."""
    print(json.dumps(recipe_schema(), indent=1))
    return 0


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe file, with one branch for each kind of stage."""
    models: list[type[BaseModel]] = [Recipe, *STAGES]
    refs, definitions = models_json_schema([(model, "validation") for model in models])
    schema: dict[str, Any] = dict(definitions["$defs"].pop("Recipe"))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"] = definitions["$defs"]
    own = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}}
    for stage in STAGES:
        definitions["$defs"][stage.__name__]["required"] = ["kind"]
    branches = [refs[(stage, "validation")] for stage in STAGES]
    schema["properties"]["stages"]["items"] = {"anyOf": [*branches, own]}
    schema["required"] = ["schema", "name", "task", "model", "stages"]
    named = {"type": "string", "description": "a built-in task, or module:function"}
    schema["properties"]["task"] = {"anyOf": [named, schema["properties"]["task"]]}
    return schema
