"""The text of a recipe, as plain data: bounded, and with one meaning or none.

YAML is read as its version 1.2 has it, and what version 1.1 takes for something else (``1:30`` for
90 in base 60, ``010`` for 8, ``yes``, ``1_000``) is refused with what to write in its place. There
are strings, numbers, ``true`` and ``false``, ``null``, lists and mappings by strings; tags, which
name other types, are refused. Aliases and merge keys (``<<``) are unfolded, so that no two places
share a value, and counted while that is done.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

import yaml

from compress.errors import RecipeError
from compress.io.files import named, read_bounded
from compress.quoting import clipped, shown

__all__ = ["Path", "dotted", "plain_data", "plain_value", "text_of", "text_of_file"]

Path = tuple[str | int, ...]

_MOST_CHARACTERS = 1_000_000
_MOST_BYTES = 4 * _MOST_CHARACTERS
_MOST_OF_ONE_TEXT = 10_000
_MOST_OF_ONE_NUMBER = 64
_MOST_OF_ONE_KEY = 200
_MOST_NODES = 20_000
_DEEPEST = 64

_PLAIN = "plain"
_TAG = "tag:yaml.org,2002:"
_TAKEN_TAGS = frozenset({_PLAIN, f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map"})

_WORDS: Mapping[str, bool | None] = MappingProxyType(
    {spelled: value for word, value in (("true", True), ("false", False), ("null", None))
     for spelled in (word, word.capitalize(), word.upper())}
    | {"": None, "~": None}
)  # fmt: skip
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# What readers of YAML 1.1 and 1.2 take for different values, and what to write in its place.
_OF_TWO_MEANINGS = (
    (re.compile(r"yes|on|no|off", re.IGNORECASE), "write true or false"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "write it in one unit"),
    (re.compile(r"[-+]?0(o[0-7_]+|b[01_]+|[0-9_]+)"), "write it in base 10, with no 0 before it"),
    (re.compile(r"[-+]?0x[0-9a-fA-F_]+"), "write it in base 10"),
    (re.compile(r"(?=.*_)[-+]?\.?[0-9][0-9_]*\.?[0-9_]*([eE][-+]?[0-9]+)?"), "write it without _"),
)
# Keys of recipes among them: as a key, none of them can be anything but a word.
_WORDS_AS_KEYS = frozenset({"on"})
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_REFUSED = "not valid YAML for a recipe"


def text_of_file(file: FilePath) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: no such file, no ordinary one, too large, or not in UTF-8.
    """
    if not os.path.lexists(file):
        raise RecipeError(f"{named(file)}: there is no such recipe file.")
    content = read_bounded(file, _MOST_BYTES, RecipeError)
    name = named(file)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RecipeError(f"{name}: the file is in UTF-16; save it in UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{name}: the recipe cannot be read: its byte {error.start} is not of a text in UTF-8."
        ) from error


def plain_data(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """The data in a text, and the line of every path.

    Raises:
        RecipeError: not YAML, too large, or of more or other than a person can have meant.
    """
    reading = _YamlReader(name)
    return reading.data(text), reading.lines


def plain_value(text: str, name: str) -> Any:
    """The data in a text of one line, such as that behind ``--set``.

    Raises:
        RecipeError: as :func:`plain_data`.
    """
    return _YamlReader(name, of_one_line=True).data(text)


def text_of(data: Any) -> str:
    """YAML that :func:`plain_data` reads back as equal data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dotted(path: Path) -> str:
    """``stages[1].ratio``."""
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{clipped(part, 40)}" for part in path
    )
    return clipped(text.removeprefix("."), 160)


class _TooMuch(Exception):
    """Ends the reading of a text; says why."""


class _Loader(yaml.BaseLoader):
    """Composes nodes and constructs nothing; ends where they are too many or too deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > 2 * _MOST_NODES:  # keys are nodes, too
            raise _TooMuch(f"the file unfolds to over {_MOST_NODES:,} values")
        if self._depth > _DEEPEST:
            raise _TooMuch(f"{_REFUSED}: it is nested over {_DEEPEST} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """A tag that tells a bare scalar from one in quotes."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


class _Dumper(yaml.SafeDumper):
    """Puts words in quotes that are numbers to one of the versions of YAML."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        is_plain = data not in _WORDS and not any(
            pattern.fullmatch(data)
            for pattern in (
                _NUMBER,
                _HEXADECIMAL,
                _NOT_FINITE,
                *(one for one, _ in _OF_TWO_MEANINGS),
            )
        )
        return self.represent_scalar(f"{_TAG}str", data, style=None if is_plain else "'")


_Dumper.add_representer(str, _Dumper.represent_text)


@dataclass
class _YamlReader:
    """One reading of one text."""

    name: str
    of_one_line: bool = False
    lines: dict[Path, int] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _count: int = 0

    def data(self, text: str) -> Any:
        """The text as plain data; every part of it is an object of its own."""
        if len(text) > _MOST_CHARACTERS:
            raise RecipeError(f"{self.name}: the file is over {_MOST_CHARACTERS:,} characters.")
        with self._in_one_sentence():
            loader = _Loader(text)
            node = loader.get_single_node()
        return None if node is None else self._built(node, ())

    @contextmanager
    def _in_one_sentence(self) -> Iterator[None]:
        try:
            yield
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark and not self.of_one_line else ""
            words = clipped(error.problem or error.context or "it cannot be read", 160)
            raise RecipeError(f"{self.name}{line}: not valid YAML: {words}.") from error
        except yaml.reader.ReaderError as error:
            raise RecipeError(
                f"{self.name}: not valid YAML: the character U+{error.character:04X} at place "
                f"{error.position} is none of a text."
            ) from error
        except _TooMuch as error:
            raise RecipeError(f"{self.name}: {error}.") from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            words = clipped(" ".join(str(error).split()), 160)
            raise RecipeError(f"{self.name}: not valid YAML ({words}).") from error

    def _built(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        self.lines[path] = node.start_mark.line + 1
        if self._count > _MOST_NODES:
            raise RecipeError(f"{self.name}: the file unfolds to over {_MOST_NODES:,} values.")
        if id(node) in self._open:
            raise self._error(node, path, f"{_REFUSED}: an alias that holds itself")
        if len(path) > _DEEPEST:
            raise self._error(node, path, f"{_REFUSED}: over {_DEEPEST} deep")
        if node.tag not in _TAKEN_TAGS:
            tag = clipped(str(node.tag).replace(_TAG, "!!"), 60)
            raise self._error(node, path, f"{_REFUSED}: the tag {tag}; write the value itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        made = (
            self._mapping(node, path)
            if isinstance(node, yaml.MappingNode)
            else [self._built(item, (*path, i)) for i, item in enumerate(node.value)]
        )
        self._open.remove(id(node))
        return made

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        pairs: dict[str, yaml.Node] = {}
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key in pairs:
                raise self._error(key_node, (*path, key), "the key is given twice")
            pairs[key] = value_node
            if key == "<<" and key_node.tag == _PLAIN:
                made = self._merged(value_node, path)
        for key, value_node in pairs.items():
            if key != "<<":
                made[key] = self._built(value_node, (*path, key))
        return made

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """What ``<<`` brings in: of several mappings, the first that has a key."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise self._error(part, path, "<< takes in a mapping, or a list of them")
            for key, value in self._built(part, path).items():
                merged.setdefault(key, value)
        return merged

    def _key(self, node: yaml.Node, path: Path) -> str:
        key = node
        if isinstance(node, yaml.ScalarNode) and node.tag in _TAKEN_TAGS:
            if node.value in _WORDS_AS_KEYS:
                return str(node.value)
            if len(node.value) > _MOST_OF_ONE_KEY:
                raise self._error(node, path, f"a key of over {_MOST_OF_ONE_KEY} characters")
            key = self._scalar(node, path)
            if isinstance(key, str):
                return key
            given = f"{shown(key)}; put it in quotes if it is meant"
        else:
            given = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        raise self._error(node, path, f"{_REFUSED}: keys are words; got {given}")

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if node.tag == _PLAIN:
            if text in _WORDS:
                return _WORDS[text]
            if _NUMBER.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
                return self._number(node, text, path)
            if _NOT_FINITE.fullmatch(text):
                return float(text.replace(".", ""))
            self._check_meaning(node, text, path)
        if len(text) > _MOST_OF_ONE_TEXT:
            raise self._error(node, path, f"a text of over {_MOST_OF_ONE_TEXT:,} characters")
        # JSON, which is YAML, writes characters beyond 16 bits as two halves.
        if _HALF_A_CHARACTER.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if _HALF_A_CHARACTER.search(text) or _CONTROL.search(text):
            raise self._error(node, path, "a character that is none of a text; leave it out")
        return text

    def _number(self, node: yaml.Node, text: str, path: Path) -> int | float:
        if len(text) > _MOST_OF_ONE_NUMBER:
            problem = f"a number of {len(text):,} characters; write it with fewer digits"
            raise self._error(node, path, problem)
        if _HEXADECIMAL.fullmatch(text):
            return int(text, 16)
        if _WHOLE.fullmatch(text):
            return int(text)
        if "." not in text and "e" not in text.lower():
            self._check_meaning(node, text, path)
        value = float(text)
        is_zero = not re.search(r"[1-9]", re.split("[eE]", text)[0])
        if math.isinf(value) or (value == 0) != is_zero:
            raise self._error(node, path, f"{text} is beyond what a number can be")
        return value

    def _check_meaning(self, node: yaml.Node, text: str, path: Path) -> None:
        if len(text) > 2 * _MOST_OF_ONE_NUMBER:
            return
        for pattern, cure in _OF_TWO_MEANINGS:
            if pattern.fullmatch(text):
                problem = f"{shown(text)} means one thing in YAML 1.1 and another in 1.2"
                word = "or put it in quotes if it is a word"
                raise self._error(node, path, f"{problem}; {cure}, {word}")

    def _error(self, node: yaml.Node, path: Path, problem: str) -> RecipeError:
        line = "" if self.of_one_line else f":{node.start_mark.line + 1}"
        place = f" {dotted(path)}:" if path else ""
        return RecipeError(f"{self.name}{line}:{place} {problem}.")
