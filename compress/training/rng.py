"""Random numbers: seeded inside, untouched outside, and written down to go on from.

Torch's generators are what this package draws from. Those of Python and numpy are treated alike,
for the parts of a recipe that are someone's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["foreign_state", "generator_state", "isolated", "set_foreign_state", "set_generators"]

_LARGEST_NUMPY_SEED = 2**32


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed random numbers inside; leave them, grad mode and dtype outside as found."""
    devices = list(range(torch.cuda.device_count()))
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    foreign = foreign_state()
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % _LARGEST_NUMPY_SEED)
        try:
            yield
        finally:
            set_foreign_state(foreign)
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def generator_state(device: torch.device) -> Tensor:
    """State of torch's generator, and after it of that of a CUDA device; bytes."""
    state = torch.get_rng_state()
    if device.type == "cuda":
        state = torch.cat([state, torch.cuda.get_rng_state(device)])
    return state


def set_generators(state: Tensor, device: torch.device) -> None:
    """Put back what :func:`generator_state` gave, here or on another kind of device."""
    own = torch.get_rng_state().numel()
    torch.set_rng_state(state[:own].clone())
    if device.type == "cuda" and state.numel() > own:
        torch.cuda.set_rng_state(state[own:].clone(), device)


def foreign_state() -> dict[str, Any]:
    """State of Python's and numpy's generators, as plain JSON values."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            numpy["bit_generator"],
            [int(word) for word in numpy["state"]["key"]],
            int(numpy["state"]["pos"]),
            int(numpy["has_gauss"]),
            float(numpy["gauss"]),
        ],
    }


def set_foreign_state(state: dict[str, Any]) -> None:
    """Put back what :func:`foreign_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, key, place, has_gauss, value = state["numpy"]
    np.random.set_state((name, np.array(key, dtype=np.uint32), place, has_gauss, value))
