"""Classes and their instances: the user's by all that they consist of, a library's by name."""

from __future__ import annotations

import collections.abc
import copyreg
import dataclasses
import enum
import io
import logging
import random
import re
import sys
import types
import weakref
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from torch import nn

from compress.fingerprints.content_walk import ContentWalk
from compress.fingerprints.libraries import compiled_identity

__all__ = ["HANDLERS", "module_attributes", "put_class_of"]

# A flag of classes that compiled code defines, and no class statement.
_IMMUTABLE = 1 << 8
_COMPILED = (types.MethodDescriptorType, types.WrapperDescriptorType)
# What every class has, or what Python and its libraries work out from the rest.
_DERIVED = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__classcell__",
        "__conditional_annotations__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__parameters__",
        "__qualname__",
        "__signature__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
        "_autograd_function_id",
    }
)
_OF_ENUM = frozenset(
    {"_value2member_map_", "_member_map_", "_member_names_", "_unhashable_values_"}
    | {"_hashable_values_", "_unhashable_values_map_", "_new_member_", "__new__", "_use_args_"}
)
_KEPT_OF_PYDANTIC = frozenset({"__pydantic_fields__"})
_NOT_STATE = frozenset({"__dict__", "__weakref__", "__pydantic_fields_set__"})
# What torch itself keeps in every module; its tensors and children are taken by themselves.
_OF_MODULES = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
_HOOKS = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")
# Where transformers had a model from, which is no part of it.
_PLACES = frozenset({"_commit_hash", "_name_or_path", "name_or_path"})
_TYPING = frozenset({"typing", "types", "typing_extensions"})
_PLAIN_BASES: tuple[type, ...] = (str, int, float, complex, bytes)


def put_class_of(walk: ContentWalk, value: Any) -> None:
    """Take in the class of a value."""
    walk.visit(type(value))


def _on_class(walk: ContentWalk, cls: Any) -> bool:
    if not issubclass(type(cls), type):  # list[int] passes for a class in Python 3.10
        return False
    library = walk.config.identity(cls.__module__)
    if library is not None and _is_of_library(cls):
        walk.put("library class", f"{library} {cls.__qualname__}")
    else:
        walk.later(cls, _put_class)
    return True


def _compiled(walk: ContentWalk, cls: type) -> str:
    identity = compiled_identity(cls.__module__)
    if identity is None:
        walk.refuse_because(
            f"the compiled class {cls.__name__}",
            f"whose module {cls.__module__} has neither a version nor a file",
        )
    return identity


def _put_class(walk: ContentWalk, cls: type) -> None:
    walk.put("class", str(len(cls.__bases__)))
    if any(isinstance(value, _COMPILED) for value in vars(cls).values()):
        walk.put("compiled class", f"{_compiled(walk, cls)} {cls.__qualname__}")
    for base in cls.__bases__:
        walk.visit(base)
    if type(cls) is not type:
        walk.visit(type(cls))
    if issubclass(cls, enum.Enum):
        for name, member in cls.__members__.items():
            walk.put("member", name)
            walk.step("holds", name, member.value)
    for name, value in sorted(vars(cls).items()):
        if _counts(cls, name, value):
            walk.put("attribute", name)
            walk.step("holds", name, value)


def _counts(cls: type, name: str, value: Any) -> bool:
    if issubclass(cls, enum.Enum) and (name in _OF_ENUM or isinstance(value, cls)):
        return False
    if name.startswith("__pydantic_"):
        return name in _KEPT_OF_PYDANTIC
    return name not in _DERIVED


def _is_of_library(cls: type) -> bool:
    """Whether a class is what its module has under its name; names alone can be set by hand."""
    if cls.__flags__ & _IMMUTABLE:
        return True
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _on_member(walk: ContentWalk, member: Any) -> bool:
    if not isinstance(member, enum.Enum):
        return False
    walk.put("member", str(member.name))
    walk.visit(type(member))
    walk.visit(member.value)
    return True


def _on_typing(walk: ContentWalk, value: Any) -> bool:
    """Types of annotations, and what they are made of."""
    if type(value).__module__ not in _TYPING or isinstance(value, types.SimpleNamespace):
        return False
    walk.put("type", repr(value))
    return True


def _on_known(walk: ContentWalk, value: Any) -> bool:
    """Instances of Python's library whose attributes say too much or too little."""
    if isinstance(value, logging.Logger):
        walk.put("logger", value.name)  # what is logged changes no result
    elif isinstance(value, re.Pattern):
        walk.put("pattern", str(value.flags))
        walk.visit(value.pattern)
    elif isinstance(value, random.Random):
        put_class_of(walk, value)
        walk.visit(value.getstate())
    elif isinstance(value, dataclasses.Field):
        _put_field(walk, value)
    elif type(value).__module__ == "pydantic.fields" and type(value).__name__ == "FieldInfo":
        walk.put("field", repr(value.annotation))
        for part in (value.default, value.default_factory, list(value.metadata)):
            walk.visit(part)
    elif isinstance(value, weakref.ref):
        walk.put("reference")
        walk.visit(value())
    else:
        return False
    return True


def _put_field(walk: ContentWalk, field: dataclasses.Field[Any]) -> None:
    walk.put("field", f"{field.name} {field.init} {field.kw_only} {field.compare} {field.hash}")
    for part in (field.default, field.default_factory, dict(field.metadata)):
        walk.step("holds", field.name, part)


def _on_path(walk: ContentWalk, path: Any) -> bool:
    if not isinstance(path, PurePath):
        return False
    walk.put("path", str(path))
    content = walk.config.files.content_of(path)
    walk.put("content", content)
    return True


def _on_what_flows(walk: ContentWalk, value: Any) -> bool:
    """What gives its content once, or is another at every look."""
    if isinstance(value, io.IOBase):
        walk.refuse(value, "a file object")
    if isinstance(value, (types.GeneratorType, types.AsyncGeneratorType)):
        walk.refuse(value, "a generator")
    if isinstance(value, types.CoroutineType):
        walk.refuse(value, "a coroutine")
    own = type(value)
    if isinstance(value, collections.abc.Iterator) and walk.config.identity(own.__module__):
        walk.refuse(value, f"an iterator ({own.__name__})")
    return False


def _on_network(walk: ContentWalk, value: Any) -> bool:
    if not isinstance(value, nn.Module):
        return False
    walk.later(value, _put_network)
    return True


def _put_network(walk: ContentWalk, value: nn.Module) -> None:
    walk.put("network", str(value.training))
    put_class_of(walk, value)
    tensors = {**value._parameters, **value._buffers}
    for name, tensor in tensors.items():
        walk.put("tensor", name)
        walk.step("holds", name, tensor)
    for name, child in value._modules.items():
        walk.put("child", name)
        walk.step("holds", name, child)
    for name in _HOOKS:
        hooks = getattr(value, name, None) or {}
        walk.put(name, str(len(hooks)))
        for hook in hooks.values():
            walk.step("holds", name, hook)
    for name, attribute in module_attributes(value):
        walk.put("attribute", name)
        walk.step("holds", name, attribute)


def module_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """The attributes of a module that are neither its tensors, its children nor torch's own."""
    return sorted((name, value) for name, value in _state(module) if name not in _OF_MODULES)


def _on_instance(walk: ContentWalk, value: Any) -> bool:
    """Any other object: its class, and its attributes or what it would be made again from."""
    walk.later(value, _put_instance)
    return True


def _put_instance(walk: ContentWalk, value: Any) -> None:
    walk.put("instance")
    own = type(value)
    is_library = walk.config.identity(own.__module__) is not None and _is_of_library(own)
    state = list(_state(value))
    has_attributes = hasattr(value, "__dict__") or next(_slots(own), None) is not None
    if is_library and (not has_attributes or _hides_state(value)):
        _put_recipe(walk, value)
    elif not is_library and _hides_state(value):
        walk.refuse(value)
    put_class_of(walk, value)
    for base in _PLAIN_BASES:
        if isinstance(value, base):
            walk.visit(base(value))
    for name, attribute in sorted(state, key=lambda each: each[0]):
        walk.put("attribute", name)
        walk.step("holds", name, attribute)


def _put_recipe(walk: ContentWalk, value: Any) -> None:
    """What an object of compiled code tells ``copy`` of itself; nothing is made from it."""
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        recipe = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception:  # whatever a class raises that cannot be copied
        walk.refuse(value, _LOCKS.get(type(value).__name__, ""))
    if isinstance(recipe, str):
        walk.put("global", f"{getattr(value, '__module__', '')} {recipe}")
        return
    for place, part in enumerate(recipe):
        walk.put("part", str(place))
        walk.visit(list(part) if place in (3, 4) and part is not None else part)


_LOCKS = {"lock": "a lock", "RLock": "a lock"}


def _hides_state(value: Any) -> bool:
    """Whether compiled code holds something of an object that none of its attributes shows."""
    own = type(value)
    if isinstance(value, _PLAIN_BASES):
        return False
    if any(each.__flags__ & _IMMUTABLE for each in own.__mro__ if each is not object):
        return True
    if getattr(own, "__getstate__", None) is not getattr(object, "__getstate__", None):
        return False
    try:
        object.__reduce_ex__(value, 2)
    except Exception:  # whatever a class raises that cannot be copied
        return True
    return False


def _slots(cls: type) -> Iterator[str]:
    for each in cls.__mro__:
        named = each.__dict__.get("__slots__", ())
        for name in (named,) if isinstance(named, str) else named:
            if name not in _NOT_STATE:
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{each.__name__.lstrip('_')}{name}" if private else name


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    attributes = getattr(value, "__dict__", {})
    is_place = _PLACES if "name_or_path" in attributes or "_name_or_path" in attributes else ()
    yield from ((name, each) for name, each in attributes.items() if name not in is_place)
    for name in dict.fromkeys(_slots(type(value))):
        try:
            yield name, object.__getattribute__(value, name)
        except AttributeError:  # never set
            continue


#: In this order; the last takes everything.
HANDLERS = (
    _on_class,
    _on_member,
    _on_known,
    _on_path,
    _on_what_flows,
    _on_network,
    _on_typing,
    _on_instance,
)
