"""What the reference says of keys, read from the source: where a key is declared it is described.

A setting is described by the docstring below its field, an option of a task or a net by its line
under ``Args``. They are read from source files when a schema is made, and at no other time.
pydantic would read them whenever a class is made (``use_attribute_docstrings``), which costs a
tenth of the time that the program takes to start.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = [
    "argument_docs",
    "attribute_docs",
    "before_sections",
    "in_markdown",
    "summary",
]

#: Where a first sentence ends: not at the abbreviations of papers.
_FIRST_END = re.compile(r"(?<=[.;]) (?=[A-Z`])|(?<=:) (?=`)")
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+): ", re.MULTILINE)
_ROLE = re.compile(r":[a-z]+:`[~.]*(?:[\w.]*\.)?([^`]+)`")
_LITERAL = re.compile(r"``([^`]+)``")
_LITERAL_BLOCK = re.compile(r"^::\n\n((?:    .*\n?|\n)+)", re.MULTILINE)


def attribute_docs(owner: type) -> dict[str, str]:
    """The docstrings of a class's fields by name, those of its bases included, in Markdown.

    Fields without one are left out, as are all where there is no source to read.
    """
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        found |= _own_attribute_docs(base)
    return found


def argument_docs(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function or class says of its arguments, by name, in Markdown."""
    text = inspect.getdoc(function) or ""
    sections = _SECTION.split(text)
    for title, body in zip(sections[1::2], sections[2::2], strict=True):
        if title == "Args":
            parts = _ARGUMENT.split(textwrap.dedent(body).strip("\n"))
            return {
                name: _sentence(in_markdown(" ".join(words.split())))
                for name, words in zip(parts[1::2], parts[2::2], strict=True)
            }
    return {}


def summary(description: str) -> str:
    """The first sentence of a description or what it says before a list, on one line."""
    first = " ".join(description.partition("\n\n")[0].split())
    return _FIRST_END.split(first, maxsplit=1)[0].rstrip(".:;")


def before_sections(docstring: str) -> str:
    """A docstring up to its ``Args``, ``Returns`` or ``Raises``."""
    return _SECTION.split(docstring)[0].strip()


def in_markdown(text: str) -> str:
    """Text of a docstring in Markdown: code in single backticks, a block of it in a fence."""
    text = _ROLE.sub(r"`\1`", text)
    text = _LITERAL.sub(r"`\1`", text)
    return _LITERAL_BLOCK.sub(_fenced, text + "\n").strip()


def _fenced(block: re.Match[str]) -> str:
    return f"```text\n{textwrap.dedent(block[1]).strip()}\n```\n\n"


def _sentence(text: str) -> str:
    """A clause as a sentence of its own."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _own_attribute_docs(owner: type) -> dict[str, str]:
    if owner.__module__ in ("builtins", "abc") or owner.__module__.startswith("pydantic"):
        return {}
    try:
        source = textwrap.dedent(inspect.getsource(owner))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):  # made where there is no file
        return {}
    body = getattr(tree.body[0], "body", [])
    return {
        field.target.id: in_markdown(inspect.cleandoc(doc.value.value))
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }
