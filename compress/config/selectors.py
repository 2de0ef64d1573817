"""Selectors: patterns that name layers of a model.

A pattern is a module path (``head``), a glob over module paths (``blocks.*.conv1``; ``*`` also
crosses dots), or ``type:`` followed by a class name or glob (``type:Linear``, ``type:Conv?d``).
This file knows names and class names only, never modules, so that it needs no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from compress.errors import SelectorError
from compress.quoting import clipped, shown

__all__ = ["matches", "named", "select"]

_TYPE_PREFIX = "type:"
_MOST_NAMED = 3


def matches(pattern: str, name: str, type_name: str) -> bool:
    """Whether ``pattern`` names the layer ``name`` whose class is called ``type_name``."""
    if pattern.startswith(_TYPE_PREFIX):
        return fnmatchcase(type_name, pattern.removeprefix(_TYPE_PREFIX))
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def select(
    patterns: Sequence[str],
    layers: Mapping[str, str],
    *,
    exclude: Sequence[str] = (),
    where: str = "select",
) -> list[str]:
    """Names in ``layers`` that some pattern matches and no ``exclude`` pattern does, in order.

    ``layers`` maps a module path to its class name. A module path also selects everything below it.

    Raises:
        SelectorError: a pattern, of either kind, that matches no layer; it lists the nearest names.
    """
    for field, given in ((where, patterns), (f"{where} exclude", exclude)):
        for pattern in given:
            if not any(matches(pattern, name, kind) for name, kind in layers.items()):
                raise SelectorError(_no_match(field, pattern, layers))
    return [
        name
        for name, kind in layers.items()
        if _any_matches(patterns, name, kind) and not _any_matches(exclude, name, kind)
    ]


def named(names: Sequence[str]) -> str:
    """The first few names, for a sentence, and how many more there are."""
    first = ", ".join(shown(name) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{first} and {more} more" if more > 0 else first


def _any_matches(patterns: Iterable[str], name: str, type_name: str) -> bool:
    return any(matches(pattern, name, type_name) for pattern in patterns)


def _no_match(field: str, pattern: str, layers: Mapping[str, str]) -> str:
    if pattern.startswith(_TYPE_PREFIX):
        known = [f"{_TYPE_PREFIX}{kind}" for kind in sorted(set(layers.values()))]
    else:
        known = list(layers)
    near = difflib.get_close_matches(clipped(pattern), known, n=3, cutoff=0.3) or known[:3]
    choices = ", ".join(shown(name) for name in near) or "none: the model has no such layers"
    return f"{field}: the pattern {shown(pattern)} matches no layer; nearest are {choices}."
