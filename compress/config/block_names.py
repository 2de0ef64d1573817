"""Names of the blocks of a list: of stages their labels, of losses their kinds. No torch.

``prune`` is a stage of that kind and ``prune-2`` the second one; rows of a record, ``--set``, and
what tells recipes apart all use these names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

__all__ = ["base_name", "block_names", "kind_of", "named_blocks", "unique_name"]


def unique_name(wanted: str, taken: Collection[str]) -> str:
    """The name, or where it is taken the first of ``name-2``, ``name-3``, ... that is free."""
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}-{count}", count + 1
    return name


def block_names(blocks: Sequence[Any]) -> list[str] | None:
    """A name for each block, all different; ``None`` where one of ``blocks`` has no name."""
    names: list[str] = []
    for block in blocks:
        wanted = base_name(block)
        if wanted is None:
            return None
        names.append(unique_name(wanted, names))
    return names


def base_name(block: Any) -> str | None:
    """A block's label, else its name, else its kind: of ``module:name`` the name."""
    if not isinstance(block, dict):
        return None
    found = block.get("label") or block.get("name") or kind_of(block)
    return found if isinstance(found, str) else None


def kind_of(block: Any) -> str | None:
    """A block's kind: of ``module:name`` the name."""
    kind = block.get("kind") if isinstance(block, dict) else None
    return kind.rpartition(":")[2] if isinstance(kind, str) else None


def named_blocks(blocks: Sequence[Any], name: str) -> list[int]:
    """The places of the blocks that ``name`` may mean: several where it does not say which.

    A label or a kind is the name of all that have it; ``prune-1`` is the first of several.
    """
    bases = [base_name(block) for block in blocks]
    found = [place for place, base in enumerate(bases) if base == name]
    found = found or [place for place, block in enumerate(blocks) if kind_of(block) == name]
    if found:
        return found
    names = block_names(blocks) or []
    if name in names:
        return [names.index(name)]
    first = name.removesuffix("-1")
    return [names.index(first)] if bases.count(first) > 1 and first != name else []
