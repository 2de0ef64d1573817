"""Functions, methods and modules: by what they do and what they refer to, not by what they say."""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Mapping
from typing import Any, NoReturn

from compress.fingerprints.bytecode import (
    Import,
    NameReference,
    imports_of,
    put_code,
    references_of,
)
from compress.fingerprints.content_walk import ContentWalk
from compress.fingerprints.libraries import (
    compiled_identity,
    installed_identity,
    source_path,
)
from compress.fingerprints.sources import absolute_name, closed_source, module_file

__all__ = ["HANDLERS"]

# What runs code that is not seen here.
_UNSEEN = frozenset({"eval", "exec", "globals", "__import__"})
_DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_CACHED = type(functools.lru_cache(maxsize=1)(lambda: None))
# Where torch.compile notes the function that it was given.
_COMPILED_FROM = "_torchdynamo_orig_callable"
_MISSING = object()


def _on_function(walk: ContentWalk, function: Any) -> bool:
    if not isinstance(function, types.FunctionType):
        return False
    library = _library_of(walk, function)
    if library is not None and _is_reachable(function):
        walk.put("library function", f"{library} {function.__qualname__}")
    else:
        original = vars(function).get(_COMPILED_FROM)
        walk.later(function if original is None else original, _put_function)
    return True


def _put_function(walk: ContentWalk, function: Any) -> None:
    if not isinstance(function, types.FunctionType):
        walk.visit(function)
        return
    library = _library_of(walk, function)
    walk.put("function", library or "")
    put_code(walk, function.__code__)
    _put_bindings(walk, function)
    if library is None:
        _put_references(walk, function)


def _on_method(walk: ContentWalk, method: Any) -> bool:
    if not isinstance(method, types.MethodType):
        return False
    walk.put("method")
    walk.visit(method.__func__)
    walk.visit(method.__self__)
    return True


def _on_partial(walk: ContentWalk, partial: Any) -> bool:
    if not isinstance(partial, (functools.partial, functools.partialmethod)):
        return False
    walk.put("partial", type(partial).__name__)
    walk.visit(partial.func)
    for place, value in enumerate(partial.args):
        walk.step("holds", f"argument {place}", value)
    for name, value in sorted(partial.keywords.items()):
        walk.put("keyword", name)
        walk.step("holds", name, value)
    return True


def _on_cached(walk: ContentWalk, function: Any) -> bool:
    if not isinstance(function, _CACHED):
        return False
    walk.put("cached")
    walk.visit(function.__wrapped__)
    return True


def _on_wrapper(walk: ContentWalk, wrapper: Any) -> bool:
    """What holds functions in the body of a class."""
    if isinstance(wrapper, property):
        walk.put("property")
        for function in (wrapper.fget, wrapper.fset, wrapper.fdel):
            walk.visit(function)
        return True
    if isinstance(wrapper, (staticmethod, classmethod)):
        walk.put(type(wrapper).__name__)
        walk.visit(wrapper.__func__)
        return True
    if isinstance(wrapper, functools.cached_property):
        walk.put("cached property")  # which has a lock too
        walk.visit(wrapper.func)
        return True
    return False


def _on_code(walk: ContentWalk, code: Any) -> bool:
    if not isinstance(code, types.CodeType):
        return False
    put_code(walk, code)
    return True


def _on_builtin(walk: ContentWalk, function: Any) -> bool:
    if isinstance(function, (types.BuiltinFunctionType, types.MethodWrapperType)):
        walk.put("builtin", function.__name__)
        owner = function.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            name = str(owner.__name__ if owner is not None else function.__module__)
            walk.put("of", compiled_identity(name) or _refuse_compiled(walk, name, function))
        else:
            walk.visit(owner)
        return True
    if isinstance(function, _DESCRIPTORS):
        walk.put("descriptor", function.__name__)
        walk.visit(function.__objclass__)
        return True
    return False


def _on_module(walk: ContentWalk, module: Any) -> bool:
    if not isinstance(module, types.ModuleType):
        return False
    library = walk.config.identity(module.__name__)
    walk.put("module", library if library is not None else _sources(walk, module))
    return True


def _refuse_compiled(walk: ContentWalk, module: str, function: Any) -> NoReturn:
    walk.refuse_because(
        f"the compiled function {function.__name__}",
        f"whose module {module} has neither a version nor a file",
    )


#: In this order.
HANDLERS = (
    _on_function,
    _on_method,
    _on_partial,
    _on_cached,
    _on_wrapper,
    _on_code,
    _on_builtin,
    _on_module,
)


def _library_of(walk: ContentWalk, function: types.FunctionType) -> str | None:
    # By its namespace: ``__module__`` may be set by hand, and is by functools.wraps.
    name = str(function.__globals__.get("__name__"))
    module = sys.modules.get(name)
    is_own = module is not None and vars(module) is function.__globals__
    return walk.config.identity(name) if is_own else None


def _is_reachable(function: types.FunctionType) -> bool:
    """Whether the library's module has this very function under its name."""
    found: Any = sys.modules.get(str(function.__globals__.get("__name__")))
    for part in function.__qualname__.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
        found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    return found is function and function.__code__.co_name == function.__name__


def _put_bindings(walk: ContentWalk, function: types.FunctionType) -> None:
    """Defaults, what is closed over, and attributes."""
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    walk.put("defaults", str(len(defaults)))
    for name, value in zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True):
        walk.step("holds", name, value)
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        walk.put("default", name)
        walk.step("holds", name, value)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        walk.put("cell")
        try:
            content = cell.cell_contents
        except ValueError:
            walk.put("empty")
            continue
        walk.step("closes over", name, content)
    attributes = vars(function)
    registry = getattr(function, "registry", None)
    if function.__globals__ is vars(functools) and isinstance(registry, Mapping):
        attributes = {"registry": registry}
    for name, value in sorted(attributes.items()):
        if name not in ("__wrapped__", "cache_clear", "_clear_cache", "dispatch", "register"):
            walk.put("attribute", name)
            walk.step("holds", name, value)


def _put_references(walk: ContentWalk, function: types.FunctionType) -> None:
    for reference in references_of(function.__code__):
        _put_reference(walk, function.__globals__, reference)
    for statement in imports_of(function.__code__):
        walk.put("import", f"{statement.level} {statement.module}")
        _put_import(walk, function.__globals__, statement)


def _put_reference(walk: ContentWalk, scope: Mapping[str, Any], reference: NameReference) -> None:
    name, attributes = reference.name, reference.attributes
    value = scope.get(name, _MISSING)
    if value is _MISSING:
        value = getattr(builtins, name, _MISSING)
        if value is _MISSING or _is_of_python(value):
            walk.put("missing" if value is _MISSING else "of python", name)
            if name in _UNSEEN and value is not _MISSING:
                walk.refuse_because(
                    f"{name}()", "which runs or reads what is not seen here", "calls"
                )
            return
    while attributes and isinstance(value, types.ModuleType):
        if walk.config.identity(value.__name__) is not None:
            break
        found = _member(value, attributes[0])
        if found is _MISSING:
            break
        name, value, attributes = f"{name}.{attributes[0]}", found, attributes[1:]
    walk.put("global", name)
    walk.step("uses", name, value)


def _is_of_python(value: Any) -> bool:
    """Whether it is a built-in as Python made it."""
    return getattr(value, "__module__", "builtins") == "builtins" or isinstance(value, bool)


def _member(module: types.ModuleType, name: str) -> Any:
    if name in vars(module):
        return vars(module)[name]
    return sys.modules.get(f"{module.__name__}.{name}", _MISSING)


def _put_import(walk: ContentWalk, scope: Mapping[str, Any], statement: Import) -> None:
    # By its file, imported or not: its digest must not change when the function first runs.
    base = absolute_name(scope, statement)
    library = installed_identity(base.partition(".")[0]) if base else None
    if library is not None:
        walk.put("library", library)
        return
    for name in (base, *(f"{base}.{name}" for name in statement.names if name != "*")):
        path = module_file(name)
        walk.put("file", "" if path is None else closed_source(walk, name, path))


def _sources(walk: ContentWalk, module: types.ModuleType) -> str:
    path = source_path(module)
    if path is None:
        walk.refuse(module, f"the module {module.__name__}, which has no file")
    return closed_source(walk, module.__name__, path)
