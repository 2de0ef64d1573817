"""What a code object does and refers to: comments, lines, docstrings and names left out."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from compress.fingerprints.content_walk import ContentWalk

__all__ = ["Import", "NameReference", "imports_of", "put_code", "references_of"]

_READS = frozenset({"LOAD_FROM_DICT_OR_GLOBALS", "LOAD_GLOBAL", "LOAD_NAME"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_HAS_CONSTANT, _HAS_NAME = frozenset(dis.hasconst), frozenset(dis.hasname)
# Of a class that is made inside of a function; its number of the line moves with every comment.
_LINE = "__firstlineno__"
_SPEAKING = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_KINDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclass(frozen=True, order=True)
class NameReference:
    """A name that is looked up in the module, and the attributes that are read from it."""

    name: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, order=True)
class Import:
    """An import statement inside of a function."""

    level: int
    module: str
    names: tuple[str, ...]


def put_code(walk: ContentWalk, code: CodeType) -> None:
    """Take in a code object: its instructions with their constants, and its signature.

    Constants that nothing reads, such as docstrings, do not count; nor do names of variables.
    """
    arguments = code.co_argcount + code.co_kwonlyargcount
    walk.put("code", f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount}")
    walk.put("flags", str(code.co_flags & (_SPEAKING | _KINDS)))
    walk.put("arguments", " ".join(code.co_varnames[:arguments]))
    walk.put("table", getattr(code, "co_exceptiontable", b""))
    instructions = list(dis.get_instructions(code))
    for place, one in enumerate(instructions):
        if one.opcode in _HAS_CONSTANT:
            walk.put(one.opname)
            _put_constant(walk, instructions, place)
        elif one.opcode in _HAS_NAME:
            walk.put(one.opname, str(one.argval))
        else:
            walk.put(one.opname, "" if one.arg is None else str(one.arg))


def references_of(code: CodeType) -> list[NameReference]:
    """What a code object, and all that is nested in it, looks up in its module; sorted."""
    return sorted(set(_references(code)))


def imports_of(code: CodeType) -> list[Import]:
    """The import statements in a code object, and in all that is nested in it; sorted."""
    return sorted(set(_imports(code)))


def _put_constant(walk: ContentWalk, instructions: list[dis.Instruction], place: int) -> None:
    following = instructions[place + 1 : place + 2]
    if following and following[0].argval == _LINE:
        return
    value = instructions[place].argval
    if isinstance(value, CodeType):
        put_code(walk, value)
    else:
        walk.visit(value)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _references(code: CodeType) -> Iterator[NameReference]:
    for each in _nested(code):
        instructions = list(dis.get_instructions(each))
        for place, one in enumerate(instructions):
            if one.opname in _READS:
                yield NameReference(str(one.argval), _attributes(instructions, place + 1))


def _attributes(instructions: list[dis.Instruction], start: int) -> tuple[str, ...]:
    found: list[str] = []
    for one in instructions[start:]:
        if one.opname not in _ATTRIBUTES:
            break
        found.append(str(one.argval))
    return tuple(found)


def _imports(code: CodeType) -> Iterator[Import]:
    for each in _nested(code):
        instructions = list(dis.get_instructions(each))
        for place, one in enumerate(instructions):
            if one.opname != "IMPORT_NAME":
                continue
            level, names = (_constant(instructions, place - back) for back in (2, 1))
            yield Import(int(level or 0), str(one.argval), tuple(names or ()))


def _constant(instructions: list[dis.Instruction], place: int) -> Any:
    return instructions[place].argval if place >= 0 else None
