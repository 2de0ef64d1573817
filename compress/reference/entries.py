"""What the schema says of each key and block: types, choices, ranges, defaults, sources.

Plain data of a JSON Schema, which is read and not made here: no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.config.docstrings import summary

__all__ = ["Block", "Choice", "Key", "blocks_of", "stage_blocks", "top_block"]

_SOURCE = re.compile(r"\n*^Source: (.+?)(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false"}
_UNITS = {"_ms": "milliseconds", "_s": "seconds", "_kib": "KiB", "_mib": "MiB"}
#: A bound that is there for the machine alone.
_UNBOUNDED = 1e11
_NAMING = ("kind", "name", "arch")


@dataclass(frozen=True)
class Choice:
    """One value that a key may have, and what it is; empty where the description says that."""

    value: str
    about: str = ""


class _Described:
    """What a node of the schema says of itself."""

    node: Mapping[str, Any]

    @property
    def description(self) -> str:
        """What it is, in Markdown."""
        return _without_source(str(self.node.get("description", "")))

    @property
    def summary(self) -> str:
        """Its description's first sentence."""
        return summary(self.description)

    @property
    def source(self) -> str:
        """The papers of the method; empty where there is none."""
        return _source(str(self.node.get("description", "")))


@dataclass(frozen=True)
class Key(_Described):
    """One key of a block.

    Args:
        name: as a recipe writes it.
        node: its JSON Schema.
        schema: the whole one, which references in ``node`` are into.
        is_required: whether it has to be given.
    """

    name: str
    node: Mapping[str, Any]
    schema: Mapping[str, Any]
    is_required: bool

    @property
    def names_its_block(self) -> bool:
        """Whether it has one value in this block, which is what the block is called."""
        return self.name == "kind" and "const" in self.node

    @property
    def unit(self) -> str:
        """The unit that its name says; empty where it says none."""
        return next((unit for end, unit in _UNITS.items() if self.name.endswith(end)), "")

    @property
    def default(self) -> str:
        """As a recipe would write it; ``required`` where there is none."""
        if self.is_required:
            return "required"
        given = self.node.get("default")
        if given is None:
            return "not given"
        return in_yaml(given) if given or given in (0, False) else "none"

    @property
    def types(self) -> tuple[str, ...]:
        """The forms that its values may have."""
        return tuple(dict.fromkeys(_types(self._leaves, self.schema)))

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The values that it may have, where these are named."""
        found: list[Choice] = []
        for leaf in self._deep_leaves:
            values = leaf.get("enum", [leaf["const"]] if "const" in leaf else [])
            about = leaf.get("enumDescriptions", [""] * len(values))
            found += [Choice(in_yaml(v), text) for v, text in zip(values, about, strict=True)]
        return tuple(dict.fromkeys(found))

    @property
    def range(self) -> str:
        """Which numbers it may be; empty where that is not limited."""
        texts = (_range(leaf) for leaf in self._deep_leaves)
        return " or ".join(dict.fromkeys(text for text in texts if text))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that it may hold, alone or in a list."""
        return tuple(dict.fromkeys(blocks_of(self.node, self.schema)))

    @property
    def _leaves(self) -> list[Mapping[str, Any]]:
        return list(_alternatives(self.node, self.schema))

    @property
    def _deep_leaves(self) -> Iterator[Mapping[str, Any]]:
        for leaf in self._leaves:
            yield from _inside(leaf, self.schema)


@dataclass(frozen=True, eq=False)
class Block(_Described):
    """One block of a recipe: a stage, a loss, a task, a target, or a part of these.

    Args:
        node: its JSON Schema.
        schema: the whole one.
        name: the kind, where a block says which it is: ``response`` of a loss.
    """

    node: Mapping[str, Any]
    schema: Mapping[str, Any]
    name: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.node is other.node

    def __hash__(self) -> int:
        return id(self.node)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Its keys, the one that says what it is first."""
        properties = self.node.get("properties", {})
        required = self.node.get("required", ())
        order = sorted(properties, key=lambda name: name not in _NAMING)
        return tuple(Key(n, properties[n], self.schema, n in required) for n in order)

    @property
    def variants(self) -> tuple[Block, ...]:
        """What its further keys depend on: the built-in tasks of a task, nets of a model."""
        found = []
        for branch in self.node.get("allOf", ()):
            ((_, named),) = branch["if"]["properties"].items()
            found.append(Block(branch["then"], self.schema, named["const"]))
        return tuple(found)


def top_block(schema: Mapping[str, Any]) -> Block:
    """The recipe itself."""
    return Block(schema, schema)


def stage_blocks(schema: Mapping[str, Any]) -> tuple[Block, ...]:
    """The stages that are built in."""
    blocks = blocks_of(schema["properties"]["stages"], schema)
    return tuple(block for block in blocks if block.name)


def blocks_of(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Block]:
    """The blocks that values of a schema may be or hold."""
    for leaf in _alternatives(node, schema):
        for inner in _inside(leaf, schema):
            if "properties" in inner:
                kind = inner["properties"].get("kind", {})
                yield Block(inner, schema, str(kind.get("const", "")))


def in_yaml(value: Any) -> str:
    """A default or a choice on one line, as a recipe would write it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {in_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(in_yaml, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"(~/|/)?[A-Za-z.][\w./-]*", value):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _without_source(text: str) -> str:
    return _SOURCE.sub("", text).strip()


def _source(text: str) -> str:
    found = _SOURCE.search(text)
    return "" if found is None else " ".join(found[1].split()).rstrip(".")


def _alternatives(
    node: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """A schema's forms, references followed; ``null`` is none of them."""
    if "$ref" in node:
        yield from _alternatives(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
        return
    several = (*node.get("anyOf", ()), *node.get("oneOf", ()))
    for one in several:
        yield from _alternatives(one, schema)
    if not several and node.get("type") != "null":
        yield node


def _inside(leaf: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A form, or those of what it is a list or a mapping of."""
    inner: Sequence[Any] = [leaf.get("items"), leaf.get("additionalProperties")]
    inner = [*inner, *leaf.get("prefixItems", ())]
    held = [one for one in inner if isinstance(one, Mapping)]
    if not held:
        yield leaf
    for one in held:
        for form in _alternatives(one, schema):
            yield from _inside(form, schema)


def _types(leaves: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> Iterator[str]:
    for leaf in leaves:
        if "enum" in leaf or "const" in leaf:
            continue  # choices say it
        if leaf.get("type") == "array":
            items = leaf.get("items", {})
            inner = [*_types(list(_alternatives(items, schema)), schema)] if items else []
            yield f"list of {' or '.join(dict.fromkeys(inner))}" if inner else "list"
        else:
            yield _type(leaf)


def _type(leaf: Mapping[str, Any]) -> str:
    kind = leaf.get("type")
    if kind == "object":
        return "block" if "properties" in leaf else "mapping"
    if kind == "string":
        if leaf.get("format") == "path":
            return "path"
        return "module:name" if leaf.get("pattern") == ":" else "text"
    return _TYPES.get(str(kind), "any")


def _range(leaf: Mapping[str, Any]) -> str:
    if leaf.get("type") not in ("integer", "number"):
        return ""
    above, below = leaf.get("exclusiveMinimum"), leaf.get("exclusiveMaximum")
    least, most = leaf.get("minimum"), leaf.get("maximum")
    most = None if most is not None and most > _UNBOUNDED else most
    if least is not None and most is not None:
        return f"{_number(least)} to {_number(most)}"
    parts = [
        f"{word} {_number(value)}"
        for word, value in (
            ("above", above),
            ("at least", least),
            ("below", below),
            ("at most", most),
        )
        if value is not None
    ]
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"
