"""``compresskit explain KEY``: what a key, a stage or a loss means, from the kept schema."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from compress.reference import kept_schema
from compress.reference.entries import Block, Key, stage_blocks, top_block
from compress.reference.paths import Reference

__all__ = ["explained", "run"]

_WIDEST, _LEAST = 100, 40
_LONGEST_DEFAULT = 30
#: What is listed of a recipe, by the path of its key.
_LISTS = (
    ("losses of distill", "distill.losses"),
    ("tasks", "task"),
    ("models", "model"),
    ("targets", "targets"),
)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    reference = Reference(kept_schema())
    width = max(_LEAST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns - 1))
    texts = [explained(reference, key, width) for key in arguments.keys]
    print("\n\n".join(texts or [overview(reference, width)]))
    return 0


def overview(reference: Reference, width: int) -> str:
    """What can be explained, in a few lists."""
    stages = stage_blocks(reference.schema)
    parts = [
        "compresskit explain KEY: any of these, or one below it as in prune.finetune.epochs",
        _titled("stages", _about_blocks("", stages, width)),
        _titled("keys of a recipe", _about_keys("", top_block(reference.schema).keys, width)),
    ]
    for title, path in _LISTS:
        blocks = _named_below(reference.entries[path])
        parts.append(_titled(title, _about_blocks(f"{path}.", blocks, width)))
    budget = reference.entries["budget"].blocks[0].keys  # type: ignore[union-attr]
    parts.append(_titled("budget", _about_keys("budget.", budget, width)))
    return "\n\n".join(parts)


def explained(reference: Reference, wanted: str, width: int) -> str:
    """What one path means; a line for each where it may mean several things.

    Raises:
        RecipeError: there is nothing of that name.
    """
    found = reference.find(wanted)
    if len(found) == 1:
        ((path, one),) = found
        if isinstance(one, Block):
            return "\n".join([path, *_of_block(path, one, width)])
        around = reference.entries.get(path.rpartition(".")[0])
        return "\n".join([path, *_of_key(path, one, around, width)])
    lines = [(path, one.summary) for path, one in found]
    return _titled(f"{wanted} is in several places", _columns(lines, width))


def _of_key(path: str, key: Key, around: Block | Key | None, width: int) -> Iterator[str]:
    yield from _prose(key.description, width)
    yield ""
    plain = [block for block in key.blocks if not block.name]
    facts = [
        ("type", _types(key)),
        ("range", key.range),
        ("unit", key.unit),
        ("default", key.default),
        ("source", key.source or "; ".join(one.source for one in plain if one.source)),
        ("part of", _part_of(path, around) if isinstance(around, Block) else ""),
    ]
    yield from _columns([fact for fact in facts if fact[1]], width)
    choices = [(choice.value, choice.about) for choice in key.choices]
    if any(about for _, about in choices):
        yield from ("", "  choices", *_columns(choices, width, indent=4))
    named = _named_below(key)
    if named:
        above = "" if path == "stages" else f"{path}."
        yield from ("", "  which may be", *_about_blocks(above, named, width, indent=4))
    for block in plain:
        yield from ("", "  with the keys", *_about_keys(f"{path}.", block.keys, width, 4))


def _part_of(path: str, block: Block) -> str:
    source = f" ({block.source})" if block.source else ""
    return f"{path.rpartition('.')[0]}: {block.summary}{source}"


def _of_block(path: str, block: Block, width: int) -> Iterator[str]:
    yield from _prose(block.description, width)
    if block.source:
        yield from ("", *_columns([("source", block.source)], width))
    if block.keys:
        yield from ("", "  keys", *_about_keys(f"{path}.", block.keys, width, 4))


def _types(key: Key) -> str:
    named = [choice.value for choice in key.choices]
    return ", ".join([*named, *(kind for kind in key.types if kind != "any")])


def _named_below(entry: Block | Key) -> tuple[Block, ...]:
    blocks = () if isinstance(entry, Block) else entry.blocks
    named = [block for block in blocks if block.name]
    return (*named, *(variant for block in blocks for variant in block.variants))


def _about_keys(above: str, keys: Iterable[Key], width: int, indent: int = 2) -> list[str]:
    rows = [
        (f"{above}{key.name}", f"{_bracketed(key.default)}{key.summary}")
        for key in keys
        if not key.names_its_block
    ]
    return _columns(rows, width, indent)


def _bracketed(default: str) -> str:
    return f"[{default}] " if len(default) <= _LONGEST_DEFAULT else ""


def _about_blocks(above: str, blocks: Iterable[Block], width: int, indent: int = 2) -> list[str]:
    rows = [(f"{above}{block.name}", block.summary) for block in blocks]
    return _columns(rows, width, indent)


def _titled(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines])


def _prose(text: str, width: int) -> Iterator[str]:
    for number, part in enumerate(text.split("\n\n")):
        if number:
            yield ""
        lines = part.splitlines()
        if part.startswith("```"):
            yield from (f"    {line}".rstrip() for line in lines if not line.startswith("```"))
        elif part.startswith("- "):
            yield from (f"  {line}" for line in lines)
        else:
            yield from _wrapped(" ".join(part.split()), width, "  ", "  ")


def _columns(rows: Iterable[tuple[str, str]], width: int, indent: int = 2) -> list[str]:
    """Two columns, the second wrapped; below the first where there is no room beside it."""
    rows = list(rows)
    first = max((len(name) for name, _ in rows), default=0) + 2
    if indent + first > width // 2:
        return [
            line
            for name, text in rows
            for line in (" " * indent + name, *_wrapped(text, width, *[" " * (indent + 4)] * 2))
        ]
    beside = " " * (indent + first)
    return [
        line
        for name, text in rows
        for line in _wrapped(text, width, " " * indent + name.ljust(first), beside)
    ]


def _wrapped(text: str, width: int, first: str, further: str) -> list[str]:
    found = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return found or [first.rstrip()]
