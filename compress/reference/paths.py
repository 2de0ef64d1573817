"""Where each key and block stands, as ``distill.losses.response.temperature``, and finding one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from compress.errors import RecipeError
from compress.quoting import clipped, shown
from compress.reference.entries import Block, Key, stage_blocks, top_block

__all__ = ["Reference"]

_MOST_MEANT = 8
_PLACE = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Reference:
    """All that a recipe may say, by path.

    Args:
        schema: the JSON Schema of recipes.
    """

    schema: Mapping[str, Any]

    @cached_property
    def entries(self) -> dict[str, Block | Key]:
        """Every key and block by its path: those of the recipe itself, and those of its stages."""
        found = dict(_below(top_block(self.schema), ""))
        for stage in stage_blocks(self.schema):
            found |= {stage.name: stage, **dict(_below(stage, f"{stage.name}."))}
        return {path: one for path, one in found.items() if not path.startswith("stages.")}

    def find(self, wanted: str) -> list[tuple[str, Block | Key]]:
        """What a path means, whole or only its end; several where it is in several places.

        Raises:
            RecipeError: there is nothing of that name; it says what is near.
        """
        path = _normal(wanted)
        if path in self.entries:
            return [(path, self.entries[path])]
        ending = [one for one in self.entries if path and f".{one}".endswith(f".{path}")]
        through = [one for one in self.entries if path and _leads_through(path, one)]
        found = self._first_of_each(ending) or self._first_of_each(through)
        found = found or [(one, key) for one, key in self._keys() if path in _values(key)]
        if not found:
            raise RecipeError(self._unknown(wanted, path))
        return found

    def _first_of_each(self, paths: list[str]) -> list[tuple[str, Block | Key]]:
        """The shortest path to each of the things that some paths lead to."""
        first: dict[int, str] = {}
        # Losses are of all stages that train; distill takes every one of them.
        for path in sorted(paths, key=lambda one: (one.count("."), not one.startswith("distill"))):
            first.setdefault(id(_node(self.entries[path])), path)
        return [(path, self.entries[path]) for path in first.values()]

    def _keys(self) -> list[tuple[str, Key]]:
        keys = [path for path, one in self.entries.items() if isinstance(one, Key)]
        found = self._first_of_each([path for path in keys if not path.endswith(".kind")])
        return [(path, one) for path, one in found if isinstance(one, Key)]

    def _unknown(self, wanted: str, path: str) -> str:
        names = {one.rpartition(".")[2] for one in self.entries}
        near = difflib.get_close_matches(clipped(path), self.entries, n=3)
        head, _, last = path.rpartition(".")
        for word in difflib.get_close_matches(clipped(last), names, n=2):
            whole = f"{head}.{word}" if head else word
            near += [whole] if whole in self.entries or not head else []
        meant = ", ".join(dict.fromkeys(near))
        hint = f"did you mean {meant}? " if meant else ""
        return (
            f"explain: there is nothing called {shown(wanted)}; {hint}`compresskit explain` alone "
            "lists what there is."
        )


def _normal(wanted: str) -> str:
    """A path without what is of one recipe alone: places in lists, and where stages stand."""
    spaced = _PLACE.sub("", wanted.lower())
    parts = [part for part in re.split(r"[.\s]+", spaced) if part]
    parts = [part for part in parts if not part.isdecimal()]
    if len(parts) > 1 and parts[0] in ("stages", "recipe"):
        parts = parts[1:]
    return ".".join(parts)


def _leads_through(short: str, path: str) -> bool:
    """Whether a path ends with the last part of a short one, and has the others on its way."""
    *before, last = short.split(".")
    *way, end = path.split(".")
    steps = iter(way)
    return bool(before) and end == last and all(part in steps for part in before)


def _below(block: Block, above: str) -> Iterator[tuple[str, Block | Key]]:
    for key in block.keys:
        yield f"{above}{key.name}", key
        for inner in key.blocks:
            own = f"{above}{key.name}."
            if inner.name:
                yield f"{own}{inner.name}", inner
                own = f"{own}{inner.name}."
            yield from _below(inner, own)
            for variant in inner.variants:
                yield f"{own}{variant.name}", variant
                yield from _below(variant, f"{own}{variant.name}.")


def _node(entry: Block | Key) -> Mapping[str, Any]:
    return entry.node


def _values(key: Key) -> set[str]:
    return {choice.value for choice in key.choices}
