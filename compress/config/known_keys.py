"""Which keys a block takes, at any depth of what it is inside of, and which of them is nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from compress.quoting import clipped

__all__ = ["known_keys", "nearest"]


def known_keys(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys of the block at a place that pydantic names; none where that is not known.

    Of a union pydantic names the member, too: by its tag, or by its class.
    """
    blocks: list[type[BaseModel]] = [model]
    for part in place:
        if isinstance(part, int):
            continue
        inner = [one for block in blocks for one in _blocks_under(block, part)]
        named = [one for block in blocks for one in _family(block) if part in _names(one)]
        blocks = inner or named or blocks
    return list(
        dict.fromkeys(
            field.alias or name for block in blocks for name, field in block.model_fields.items()
        )
    )


#: How keys are called elsewhere.
_USUAL = {
    "T": "temperature",
    "tau": "temperature",
    "lr": "learning_rate",
    "bs": "batch_size",
    "amount": "ratio",
    "pruning_ratio": "ratio",
    "sparsity": "ratio",
    "wd": "weight_decay",
}


def nearest(key: str, known: Sequence[str]) -> str:
    """A clause with the known name that was meant, or with the known names."""
    near = [_USUAL[key]] if _USUAL.get(key) in known else []
    near = near or difflib.get_close_matches(clipped(key), known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}"
    return f"known are {clipped(', '.join(known), 200)}" if known else "there is nothing to name"


def _blocks_under(block: type[BaseModel], key: str) -> list[type[BaseModel]]:
    found = (field for name, field in block.model_fields.items() if key in (name, field.alias))
    return [inner for field in found for inner in _blocks_in(field.annotation)]


def _blocks_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _blocks_in(inner)


def _family(block: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A block and those that follow it, any of which may stand in its place."""
    yield block
    for follower in block.__subclasses__():
        yield from _family(follower)


def _names(block: type[BaseModel]) -> set[str]:
    kind = block.model_fields.get("kind")
    return {block.__name__, *map(str, get_args(kind.annotation) if kind is not None else ())}
