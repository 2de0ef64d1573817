"""Containers, arrays and random numbers: by their content."""

from __future__ import annotations

import array
from collections import ChainMap, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.fingerprints.content_walk import ContentWalk, plain_token

__all__ = ["HANDLERS", "numbers_of"]

_LONG = 64
_CODES = {int: "q", float: "d"}
_TORCH_NAMES = (torch.dtype, torch.device, torch.layout, torch.memory_format)


def _on_sequence(walk: ContentWalk, value: Any) -> bool:
    if not isinstance(value, (list, tuple, deque)):
        return False
    if not walk.entered(value):
        return True
    walk.put("sequence", f"{len(value)} {getattr(value, 'maxlen', None)}")
    _put_kind(walk, value, (list, tuple, deque))
    numbers = numbers_of(value)
    if numbers is not None:
        walk.put("numbers", numbers)
    else:
        for place, element in enumerate(value):
            walk.step("holds", str(place), element)
    walk.left(value)
    return True


def _on_set(walk: ContentWalk, value: Any) -> bool:
    if not isinstance(value, (set, frozenset)):
        return False
    if walk.entered(value):
        _put_kind(walk, value, (set, frozenset))
        walk.in_any_order("set", value)
        walk.left(value)
    return True


def _on_mapping(walk: ContentWalk, value: Any) -> bool:
    if not isinstance(value, (dict, MappingProxyType, ChainMap)):
        return False
    if not walk.entered(value):
        return True
    walk.put("mapping", str(len(value)))
    _put_kind(walk, value, (dict, MappingProxyType, ChainMap))
    if isinstance(value, defaultdict):
        walk.visit(value.default_factory)
    items = [(walk.alone(key), key, element) for key, element in value.items()]
    if not isinstance(value, OrderedDict):
        items.sort(key=lambda item: item[0])
    for token, key, element in items:
        walk.put("key", token)
        walk.step("holds", str(key) if plain_token(key) is not None else "a value", element)
    walk.left(value)
    return True


def _on_array(walk: ContentWalk, value: Any) -> bool:
    if isinstance(value, Tensor):
        _put_tensor(walk, value)
    elif isinstance(value, np.ndarray):
        _put_array(walk, value)
    elif isinstance(value, np.generic):
        _put_array(walk, np.asarray(value))
    elif isinstance(value, np.dtype):
        walk.put("dtype", repr(value))
    elif isinstance(value, _TORCH_NAMES):
        walk.put("torch", repr(value))
    elif isinstance(value, (bytearray, memoryview)):
        walk.put("bytes", bytes(value))
    elif isinstance(value, (range, slice)):
        walk.put("range", repr((type(value).__name__, value.start, value.stop, value.step)))
    else:
        return False
    return True


def _on_random(walk: ContentWalk, value: Any) -> bool:
    if isinstance(value, torch.Generator):
        walk.put("generator", str(value.device))
        walk.visit(value.get_state())
    elif isinstance(value, np.random.Generator):
        walk.put("generator")
        walk.visit(value.bit_generator.state)
    elif isinstance(value, np.random.BitGenerator):
        walk.put("bits")
        walk.visit(value.state)
    elif isinstance(value, np.random.RandomState):
        walk.put("generator")
        walk.visit(value.get_state(legacy=False))
    else:
        return False
    return True


#: In this order.
HANDLERS = (_on_sequence, _on_set, _on_mapping, _on_array, _on_random)


def _put_kind(walk: ContentWalk, value: Any, plain: Sequence[type]) -> None:
    """The class of a container, and what else one of the user's own holds."""
    own = type(value)
    if own in plain:
        walk.put("kind", own.__name__)
    else:
        walk.visit(own)
        attributes = getattr(value, "__dict__", {})
        for name, attribute in sorted(attributes.items()):
            walk.put("attribute", name)
            walk.step("holds", name, attribute)


def numbers_of(value: Any) -> bytes | None:
    """Many numbers of one kind at once; ``None`` for anything else."""
    if len(value) < _LONG:
        return None
    kinds = set(map(type, value))
    code = _CODES.get(kinds.pop()) if len(kinds) == 1 else None
    if code is None:
        return None
    try:
        return code.encode() + array.array(code, value).tobytes()
    except OverflowError:
        return None


def _put_tensor(walk: ContentWalk, tensor: Tensor) -> None:
    if walk.met(tensor):
        return
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        walk.visit(type(tensor))
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        walk.refuse_because(f"a {kind} tensor", "of which no digest is made; give a dense one")
    if tensor.device.type == "meta":
        walk.refuse_because("a tensor on the device meta", "which has no content")
    walk.put("tensor", f"{tensor.requires_grad} {walk.config.arrays.of(tensor)}")


def _put_array(walk: ContentWalk, value: np.ndarray[Any, Any]) -> None:
    if isinstance(value, np.ma.MaskedArray):
        walk.put("masked")
        for part in (np.asarray(value.data), np.ma.getmaskarray(value), value.fill_value):
            walk.visit(part)
    elif value.dtype.names is not None:
        walk.put("fields", f"{value.shape} {value.dtype.names}")
        for name in value.dtype.names:
            walk.step("holds", name, np.asarray(value[name]))
    elif value.dtype.hasobject:
        walk.put("objects", f"{value.shape} {value.dtype}")
        if walk.entered(value):
            for place, element in enumerate(value.ravel().tolist()):
                walk.step("holds", str(place), element)
            walk.left(value)
    else:
        if type(value) not in (np.ndarray, np.memmap):
            walk.visit(type(value))
        walk.put("array", walk.config.arrays.of(value))
