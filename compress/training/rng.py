"""Random numbers: seeded for a piece of work, and their state for checkpoints.

This package draws from torch's generators. Those of Python and numpy are seeded and saved as well,
for the code that a recipe brings along.
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
    """Seed all generators while open, and restore them and torch's global settings afterwards.

    The settings are grad mode, default dtype, number of threads and deterministic algorithms.

    Args:
        seed: for the generators of torch, Python and numpy.
    """
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
    """State of torch's CPU generator, followed by that of ``device`` if it is CUDA; bytes."""
    state = torch.get_rng_state()
    if device.type == "cuda":
        state = torch.cat([state, torch.cuda.get_rng_state(device)])
    return state


def set_generators(state: Tensor, device: torch.device) -> None:
    """Restore what :func:`generator_state` returned, here or on another kind of device."""
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
    """Restore what :func:`foreign_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, key, place, has_gauss, value = state["numpy"]
    np.random.set_state((name, np.array(key, dtype=np.uint32), place, has_gauss, value))
