"""References to someone else's code: ``module:name``, followed only where the user allowed it.

A recipe is data. It can name code, but only code in a module that was named with ``--import`` (or
``imports=`` in Python) is ever imported, so a recipe from a stranger cannot run anything.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compress.errors import CodeReferenceError, CompressError, in_words

__all__ = ["CodeReferences", "is_reference"]


def is_reference(text: str) -> bool:
    """Whether ``text`` has the form ``module:name``."""
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(p.isidentifier() for p in module.split("."))


@dataclass(frozen=True)
class CodeReferences:
    """The modules that may be imported, and the way to their contents."""

    allowed: frozenset[str] = frozenset()

    def check(self, reference: str, where: str) -> None:
        """Refuse a reference to a module that was not allowed; imports nothing.

        Raises:
            CodeReferenceError: the module was not named by the user.
        """
        module = reference.partition(":")[0]
        if module not in self.allowed:
            raise CodeReferenceError(
                f"{where}: {reference!r} refers to code in {module!r}, which is only imported when "
                f"you name it: add `--import {module}` (in Python: imports=({module!r},))."
            )

    def call(self, reference: str, where: str, options: Mapping[str, Any]) -> Any:
        """What the callable that ``reference`` names makes of ``options``.

        Raises:
            CodeReferenceError: as :meth:`resolve`; or it failed, with what it raised.
        """
        make = self.resolve(reference, where)
        try:
            return make(**options)
        except CompressError:
            raise
        except Exception as error:
            raise CodeReferenceError(f"{where}: failed with {in_words(error)}.") from error

    def resolve(self, reference: str, where: str) -> Callable[..., Any]:
        """The callable that ``reference`` names.

        Raises:
            CodeReferenceError: not allowed, not importable, no such name, or not callable.
        """
        self.check(reference, where)
        module_name, _, name = reference.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise CodeReferenceError(
                f"{where}: the module {module_name!r} cannot be imported ({error}); it must be "
                "installed or lie in the current folder."
            ) from error
        except CompressError:
            raise
        except Exception as error:
            raise CodeReferenceError(
                f"{where}: importing the module {module_name!r} failed with {in_words(error)}."
            ) from error
        if not hasattr(module, name):
            raise CodeReferenceError(f"{where}: the module {module_name!r} has no {name!r}.")
        found = getattr(module, name)
        if not callable(found):
            raise CodeReferenceError(
                f"{where}: {reference!r} is a {type(found).__name__}, which cannot be called."
            )
        return found  # type: ignore[no-any-return]
