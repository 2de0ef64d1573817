"""Outputs: what a model returns for one batch, as one tensor or as tensors by name.

A model may return a tensor, a tuple, a named tuple, a dictionary, a dataclass or a ``ModelOutput``
of transformers, one within the other too. Names are keys and fields, and places (``0``, ``1``)
where there are no others; what lies deeper has a dot before its own name (``features.0``). The
order of names is that in which the model returns them, and a file's outputs have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from compress.errors import ContractViolation, DataError

__all__ = ["OUTPUT", "Outputs", "as_outputs", "by_name", "each_output", "only"]
__all__ += ["selected"]

#: What an output is called that has no name of its own: that of a model which returns one tensor.
OUTPUT = "output"

#: What a model gives for one batch: a tensor, or tensors by name. Samples are on axis 0.
Outputs = Tensor | dict[str, Tensor]


def as_outputs(given: Any) -> Outputs:
    """What a model returned, as a tensor or as tensors by name; ``None`` in it is left out.

    A tensor stays as it is, and so does one alone in a tuple.

    Raises:
        ContractViolation: something in it is no tensor, there is none, or two have one name.
    """
    if isinstance(given, Tensor):
        return given
    found: dict[str, Tensor] = {}
    for name, tensor in _flat(given, ""):
        if name in found:
            raise ContractViolation(
                f"the model returns two outputs of the name {name!r}; give each its own."
            )
        found[name] = tensor
    if not found:
        raise ContractViolation(
            f"the model returns {_described(given)} without a tensor; return one or several."
        )
    is_alone = isinstance(given, (tuple, list)) and not hasattr(given, "_fields")
    if is_alone and list(found) == ["0"]:
        return found["0"]
    return found


def by_name(outputs: Outputs) -> dict[str, Tensor]:
    """Outputs by their names; one tensor is called ``output``."""
    return outputs if isinstance(outputs, dict) else {OUTPUT: outputs}


def each_output(outputs: Outputs, function: Callable[[Tensor], Tensor]) -> Outputs:
    """Outputs, or labels for them, of the same names, each of which went through a function."""
    if isinstance(outputs, dict):
        return {name: function(tensor) for name, tensor in outputs.items()}
    return function(outputs)


def selected(outputs: Outputs, name: str | None, who: str = "the model") -> Tensor:
    """One output.

    Args:
        outputs: of a model.
        name: which one; ``None`` for the only one.
        who: what gives the outputs, for messages.

    Raises:
        DataError: there is none of this name, or there are several and none is named.
    """
    named = by_name(outputs)
    if name is None and len(named) == 1:
        return next(iter(named.values()))
    if name is None:
        raise DataError(
            f"{who} gives {len(named)} outputs ({', '.join(named)}); say which is meant."
        )
    if name not in named:
        raise DataError(f"{who} has no output {name!r}; its outputs are {', '.join(named)}.")
    return named[name]


def only(outputs: Outputs, names: Collection[str], who: str = "the model") -> Outputs:
    """Some of the outputs by their names, in the order of the model; all if none is named.

    Raises:
        DataError: there is none of such a name.
    """
    for name in names:
        selected(outputs, name, who)
    if not names or not isinstance(outputs, dict):
        return outputs
    return {name: tensor for name, tensor in outputs.items() if name in names}


def _flat(given: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if given is None:
        return
    if isinstance(given, Tensor):
        yield name, given
        return
    parts = _parts(given)
    if parts is None:
        where = f" ({name})" if name else ""
        raise ContractViolation(
            f"the model returns {_described(given)}{where}; return a tensor, or a tuple or "
            "dictionary of tensors."
        )
    for key, part in parts.items():
        yield from _flat(part, f"{name}.{key}" if name else key)


def _parts(given: Any) -> dict[str, Any] | None:
    """What is in a container, by key, field or place; ``None`` of what is none."""
    if isinstance(given, Mapping):
        return {str(key): part for key, part in given.items()}
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return dict(zip(given._fields, given, strict=True))
    if isinstance(given, (tuple, list)):
        return {str(place): part for place, part in enumerate(given)}
    if is_dataclass(given) and not isinstance(given, type):
        return {field.name: getattr(given, field.name) for field in fields(given)}
    return None


def _described(given: Any) -> str:
    kind = type(given).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
