"""The checksum of a batch, which tells whether teacher and student are given the same."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from compress.modules.inputs import Inputs

__all__ = ["batch_checksum"]

_CHECKED_VALUES = 32


def batch_checksum(inputs: Inputs) -> str:
    """16 hex digits of a few values of every sample, as both nets are given them."""
    digest = hashlib.blake2b(digest_size=8)
    tensors = inputs if isinstance(inputs, dict) else {"": inputs}
    for name, tensor in sorted(tensors.items()):
        values: Any = tensor
        if tensor.dim() > 1:
            values = tensor[_checked_places(tensor.shape[1:])]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _checked_places(sample: tuple[int, ...]) -> tuple[Any, ...]:
    """An index of a few values of every sample of that shape."""
    places = np.linspace(0, math.prod(sample) - 1, _CHECKED_VALUES).astype(np.int64)
    # By coordinates: flattening would copy a batch whose channels are last.
    coordinates = np.unravel_index(np.unique(places), sample)
    return (slice(None), *(torch.from_numpy(one) for one in coordinates))
