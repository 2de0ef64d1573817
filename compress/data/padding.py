"""Sequences of different lengths, padded at their end to one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.errors import DataError

__all__ = ["Padding"]

# Whatever pads the ids of tokens: 1, say, is not what ends a mask.
_ALWAYS_ZERO = frozenset({"attention_mask", "token_type_ids"})
_NO_CLASS = -1


@dataclass(frozen=True)
class Padding:
    """How samples are padded.

    Args:
        every: pads all inputs; ``None`` where ``of`` says which are padded.
        of: what pads an input, by its name.
        mask: the name of the input to make; ``None`` for none.
    """

    every: float | None
    of: Mapping[str, float] = field(default_factory=dict)
    mask: str | None = None

    def value_of(self, name: str) -> float | None:
        """What pads the input of this name (empty: that without one); ``None`` where it is not."""
        if name in self.of:
            return self.of[name]
        return 0.0 if self.every is not None and name in _ALWAYS_ZERO else self.every

    def length_of(self, inputs: Any, where: str) -> int:
        """How long a sample is, on the first axis of the inputs that are padded.

        Args:
            inputs: of one sample.
            where: it is, for sentences.

        Raises:
            DataError: no input is padded, or they differ in length.
        """
        sizes = {
            name: len(torch.as_tensor(part))
            for name, part in _named(inputs).items()
            if self.value_of(name) is not None and torch.as_tensor(part).dim() > 0
        }
        if not sizes:
            raise DataError(
                f"{where} has no sequence among the inputs to pad; padding is for the names of "
                f"inputs ({', '.join(_named(inputs))}) whose first axis differs in length."
            )
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise DataError(
                f"{where} has inputs of different lengths ({listed}); say which are padded: "
                f"fields: {{padding: {{{next(iter(sizes))}: 0}}}}."
            )
        return next(iter(sizes.values()))

    def padded(self, inputs: Any, label: Any, length: int, where: str) -> tuple[Any, Any]:
        """A sample at ``length``: padded where it is shorter, and cut where it is longer.

        Labels along the same axis are padded with -1, or NaN where they are floating-point.

        Raises:
            DataError: as :meth:`length_of`.
        """
        own = self.length_of(inputs, where)
        found = {name: self._fitted(name, part, length) for name, part in _named(inputs).items()}
        if self.mask is not None:
            found[self.mask] = (torch.arange(length) < own).long()
        return (found if isinstance(inputs, dict) else found[""]), _label(label, own, length)

    def _fitted(self, name: str, part: Any, length: int) -> Any:
        value, tensor = self.value_of(name), torch.as_tensor(part)
        return part if value is None or tensor.dim() == 0 else _at_length(tensor, length, value)


def _named(inputs: Any) -> dict[str, Any]:
    return inputs if isinstance(inputs, dict) else {"": inputs}


def _label(label: Any, own: int, length: int) -> Any:
    if isinstance(label, dict):
        return {name: _label(part, own, length) for name, part in label.items()}
    tensor = None if label is None else torch.as_tensor(label)
    if tensor is None or tensor.dim() == 0 or len(tensor) != own:
        return label
    if tensor.is_floating_point():
        return _at_length(tensor, length, math.nan)
    return _at_length(tensor.long(), length, _NO_CLASS)


def _at_length(tensor: Tensor, length: int, value: float) -> Tensor:
    missing = max(length - len(tensor), 0)
    return F.pad(tensor[:length], (0, 0) * (tensor.dim() - 1) + (0, missing), value=value)
