"""Digests of arrays, remembered for as long as the arrays live.

An array that was seen before is not hashed again, but looked at: every byte of it goes into a
checksum of some gigabytes a second, since what is written through numpy or another view leaves no
trace. The checksum is multilinear with random weights (Lemire and Kaser 2014, "Strongly universal
string hashing is fast"): an edit of one word always changes it, and any other edit with all but
certainty.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["DataDigestCache", "FreshArrays"]

_DIGEST_BYTES = 16
# Bytes of one row of the checksum: weights and row stay in a core's cache together.
_ROW = 1 << 17
# Smaller arrays are hashed as fast as they are looked up.
_SMALL_BYTES = 1 << 16
_MOST_RECALLED = 1_000
# Odd, so that what changes in both halves of a word alike does not cancel out.
_SPREAD = np.uint64(33)

_Array = np.ndarray[Any, Any]


class FreshArrays:
    """Digests of arrays, with nothing remembered."""

    # One is as good as another: what holds one is not another thing for it.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataDigestCache)

    __hash__ = object.__hash__

    def of(self, array: Tensor | _Array) -> str:
        """The digest of dtype, shape and content, in 32 hex digits."""
        return _digest(array, _bytes_of(array))


@dataclass(frozen=True)
class _KnownArray:
    array: weakref.ref[Any]
    facts: tuple[Any, ...]
    checksum: bytes
    digest: str


class DataDigestCache:
    """Digests of arrays that are in memory, each for as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[int, _KnownArray] = {}
        self._made: dict[str, str] = {}
        random = np.random.Generator(np.random.PCG64())
        self._weights = random.integers(0, 1 << 64, _ROW // 8, dtype=np.uint64) | np.uint64(1)

    # One is as good as another: what holds one is not another thing for it.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataDigestCache)

    __hash__ = object.__hash__

    def of(self, array: Tensor | _Array) -> str:
        """The digest of dtype, shape and content, in 32 hex digits."""
        content = _bytes_of(array)
        if content.nbytes < _SMALL_BYTES:
            return _digest(array, content)
        facts = _facts(array)
        known = self._known.get(id(array))
        is_known = known is not None and known.array() is array and known.facts == facts
        checksum = self._checksum(content)
        if known is not None and is_known and known.checksum == checksum:
            return known.digest
        digest = _digest(array, content)
        key = id(array)
        self._known[key] = _KnownArray(
            weakref.ref(array, lambda _: self._known.pop(key, None)), facts, checksum, digest
        )
        return digest

    @property
    def arrays(self) -> int:
        """How many arrays are known; one that is gone is forgotten."""
        return len(self._known)

    def recalled(self, key: str, make: Callable[[], str]) -> str:
        """What ``make`` gave for ``key`` before, or gives now; it must follow from the key."""
        if key not in self._made:
            while len(self._made) >= _MOST_RECALLED:
                del self._made[next(iter(self._made))]
            self._made[key] = make()
        return self._made[key]

    def _checksum(self, content: _Array) -> bytes:
        """A number for each row of bytes, and what is left over."""
        rows = content.nbytes // _ROW
        words = content[: rows * _ROW].view(np.uint64).reshape(rows, _ROW // 8)
        sums = np.empty(rows, dtype=np.uint64)
        mixed = np.empty(_ROW // 8, dtype=np.uint64)
        for row, numbers in enumerate(words):
            # The highest bits of products are the weakest: they are spread over the lower ones.
            np.right_shift(numbers, _SPREAD, out=mixed)
            np.bitwise_xor(mixed, numbers, out=mixed)
            sums[row] = np.dot(mixed, self._weights)
        digest = hashlib.blake2b(sums.tobytes(), digest_size=_DIGEST_BYTES)
        digest.update(content[rows * _ROW :].data)
        return digest.digest()


def _facts(array: Tensor | _Array) -> tuple[Any, ...]:
    if isinstance(array, Tensor):
        place = (array.data_ptr(), array.stride(), array._version)
        return (*place, tuple(array.shape), array.dtype)
    return (array.ctypes.data, array.strides, array.shape, array.dtype)


def _bytes_of(array: Tensor | _Array) -> _Array:
    """All bytes in order, without a copy where they lie so already."""
    if isinstance(array, Tensor):
        with torch.no_grad():
            plain = array.detach().resolve_conj().resolve_neg().cpu().contiguous()
            return plain.reshape(-1).view(torch.uint8).numpy()
    if not array.nbytes:
        return np.empty(0, np.uint8)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _digest(array: Tensor | _Array, content: _Array) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    library = "torch" if isinstance(array, Tensor) else "numpy"
    digest.update(f"{library} {array.dtype} {tuple(array.shape)} ".encode())
    digest.update(content.data)
    return digest.hexdigest()
