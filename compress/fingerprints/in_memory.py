"""Data sets of the user's own whose samples are plainly parts of arrays that they hold.

Such a data set is known by its code and its arrays, and no sample need be read: of 60,000 that
would take a second each time. What is taken for one here reads attributes that are arrays or plain
values, indexes them, and calls a few methods that give the same for the same; of anything else the
samples are read.
"""

from __future__ import annotations

import dis
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["READERS", "attributes_read"]

#: The methods that give samples.
READERS = ("__getitem__", "__getitems__")
_GLOBALS = frozenset({"int", "float", "len", "torch", "np", "numpy"})
_MODULES = (torch, np)
# Of tensors and arrays, and of torch and numpy: each a function of its arguments.
_PURE = frozenset(
    {"argmax", "as_tensor", "asarray", "astype", "clone", "contiguous", "copy", "div", "expand"}
    | {"flatten", "float", "float32", "float64", "from_numpy", "index_select", "int", "int32"}
    | {"int64", "item", "long", "mul", "numpy", "permute", "reshape", "shape", "size", "squeeze"}
    | {"stack", "sub", "tensor", "to", "tolist", "transpose", "type", "uint8", "unsqueeze", "view"}
)
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_REFUSED = frozenset(
    {
        "IMPORT_NAME",
        "LOAD_BUILD_CLASS",
        "LOAD_DEREF",
        "LOAD_CLASSDEREF",
        "LOAD_SUPER_ATTR",
        "MAKE_FUNCTION",
    }
    | {"STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "YIELD_VALUE", "STORE_SUBSCR"}
)
_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.Size)


def attributes_read(dataset: Any) -> dict[str, Any] | None:
    """The attributes that its samples are made from; ``None`` where there may be more to them."""
    own = type(dataset)
    if any("__getattr__" in vars(each) or "__getattribute__" in vars(each) for each in _user(own)):
        return None
    held = getattr(dataset, "__dict__", {})
    found: dict[str, Any] = {}
    for name in READERS:
        function = getattr(own, name, None)
        if function is None:
            continue
        read = _names_read(function, own, held) if isinstance(function, FunctionType) else None
        if read is None:
            return None
        found |= {each: held[each] for each in read}
    return found if any(isinstance(each, (Tensor, np.ndarray)) for each in found.values()) else None


def _user(cls: type) -> list[type]:
    return [each for each in cls.__mro__ if each is not object]


def _names_read(function: FunctionType, own: type, held: dict[str, Any]) -> set[str] | None:
    found: set[str] = set()
    if function.__closure__ or vars(function):
        return None
    for one in dis.get_instructions(function):
        if one.opname in _REFUSED:
            return None
        if one.opname == "LOAD_GLOBAL" and not _is_known(function, str(one.argval)):
            return None
        if one.opname in _ATTRIBUTES:
            name = str(one.argval)
            if name in held:
                if hasattr(own, name) or not _is_content(held[name]):
                    return None
                found.add(name)
            elif name not in _PURE or hasattr(own, name):
                return None
    return found


def _is_known(function: FunctionType, name: str) -> bool:
    if name not in _GLOBALS:
        return False
    value = function.__globals__.get(name)
    return name not in function.__globals__ or any(value is module for module in _MODULES)


def _is_content(value: Any) -> bool:
    if type(value) in (list, tuple):
        return set(map(type, value)) <= {int, float}
    if type(value) in (np.ndarray, np.memmap):
        return not value.dtype.hasobject
    return type(value) in (Tensor, *_PLAIN)
