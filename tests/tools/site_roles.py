"""An extension of griffe: roles of Sphinx in docstrings become code, as Markdown writes it."""

from __future__ import annotations

from typing import Any

import griffe

from compress.config.docstrings import in_markdown

__all__ = ["PlainRoles"]


class PlainRoles(griffe.Extension):
    """Changes every docstring that is read."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = in_markdown(obj.docstring.value)
