"""The reference: every key of a recipe with its description, default, range and source.

All of it is made of the settings' models: editors get it as a JSON Schema, the command line by
``compresskit explain``, and the documentation as pages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["kept_schema"]


def kept_schema() -> dict[str, Any]:
    """The JSON Schema of recipes as it is kept, which a test holds to be the one that is made."""
    text = (Path(__file__).parent / "recipe.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
