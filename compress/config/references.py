"""References to the user's code: ``module:name``, followed only where the user allowed it.

A recipe is data. It can name code, but only code in a module that was named with ``--import`` (or
``imports=`` in Python) is ever imported, so an untrusted recipe cannot run code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from compress.errors import CodeReferenceError, CompressError, in_words
from compress.quoting import clipped, shown

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
                f"you name it: add `--import {module}` (in Python: imports=[{module!r}] of run, "
                "plan or Record.load)."
            )

    @classmethod
    def of(cls, modules: str | Iterable[str]) -> CodeReferences:
        """References into these modules, of which none is imported yet.

        Raises:
            CodeReferenceError: that is no name of a module.
        """
        named = (modules,) if isinstance(modules, str) else tuple(modules)
        for name in named:
            if not all(part.isidentifier() for part in name.split(".")):
                raise CodeReferenceError(
                    f"--import {clipped(name)}: that is no name of a module, such as my_parts or "
                    "my_parts.losses."
                )
        return cls(frozenset(named))

    def imported(self) -> CodeReferences:
        """These, once every module is seen to be there, whether anything leads to it or not.

        Raises:
            CodeReferenceError: one that cannot be imported.
        """
        for name in sorted(self.allowed):
            _imported(name, f"--import {clipped(name)}")
        return self

    def can_import(self, reference: str) -> bool:
        """Whether the module of a reference is allowed and found; nothing is imported."""
        module = reference.partition(":")[0]
        if module not in self.allowed:
            return False
        try:
            return module in sys.modules or importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            return True  # the import says what is wrong with it

    def resolve(self, reference: str, where: str) -> Callable[..., Any]:
        """The callable that ``reference`` names.

        Raises:
            CodeReferenceError: not allowed, not importable, no such name, or not callable.
        """
        self.check(reference, where)
        module_name, _, name = reference.partition(":")
        module = _imported(module_name, where)
        try:
            found: Any = getattr(module, name, _NOTHING)
        except (Exception, SystemExit) as error:  # of a module that makes its names when asked
            raise CodeReferenceError(
                f"{where}: asking the module {module_name!r} for {name!r} failed with "
                f"{in_words(error)}."
            ) from error
        if found is _NOTHING:
            near = get_close_matches(name, [one for one in dir(module) if one[:1] != "_"], 1)
            meant = f"; did you mean {near[0]!r}" if near else ""
            raise CodeReferenceError(f"{where}: the module {module_name!r} has no {name!r}{meant}.")
        if not callable(found):
            raise CodeReferenceError(
                f"{where}: {reference!r} is a {type(found).__name__}, which cannot be called."
            )
        made: Callable[..., Any] = found
        return made


_NOTHING = object()


def _imported(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CodeReferenceError(
            f"{where}: the module {shown(name)} cannot be imported ({clipped(str(error), 160)}); "
            "it must be installed or lie in the current folder."
        ) from error
    except CompressError:
        raise
    except (Exception, SystemExit) as error:
        raise CodeReferenceError(
            f"{where}: importing the module {name!r} failed with {in_words(error)}."
        ) from error
