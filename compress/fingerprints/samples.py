"""Reading samples one by one, whatever they are, and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import CompressError, in_words
from compress.fingerprints.content_walk import ContentWalk, Unstable, plain_token
from compress.fingerprints.values import numbers_of

__all__ = ["SampleDigests"]

_DIGEST_BYTES = 16
# Read without a detour, which costs as much as a small sample itself.
_OF_NUMPY = frozenset(
    {torch.float32, torch.float64, torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool}
)
_OFFER = "a `fingerprint` (a text that changes when the data do)"


class SampleDigests:
    """The samples of a data set, as digests.

    Args:
        walk: takes what is neither a tensor, an array, a number nor a container of these.
        dataset: any that is read by index.
    """

    def __init__(self, walk: ContentWalk, dataset: Any) -> None:
        self._walk = walk
        self._dataset = dataset
        self._heads: dict[Any, bytes] = {}

    def all(self, count: int) -> str:
        """The digest of all samples, in order.

        Raises:
            Unstable: a sample cannot be read, or holds what cannot be compared.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for place in range(count):
            self._feed(digest.update, self._sample(place), place)
        return digest.hexdigest()

    def batch(self, places: Sequence[int]) -> str:
        """The digest of what the data set gives for several places at once.

        Raises:
            Unstable: it cannot be read, or holds what cannot be compared.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._feed(digest.update, self._read(list(places)), places[0])
        return digest.hexdigest()

    def twice(self, place: int) -> str:
        """The digest of one sample, after two reads of it.

        Raises:
            Unstable: they differ.
        """
        first, second = self._one(place), self._one(place)
        if hasattr(self._dataset, "__getitems__"):
            first, second = first + self.batch([place]), second + self.batch([place])
        if first != second:
            raise Unstable(
                f"two reads of sample {place} of {self._walk.what} differ (random numbers in its "
                f"`__getitem__`, perhaps); give the data set {_OFFER}, or draw in the task's "
                "augment"
            )
        return first

    def _one(self, place: int) -> str:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._feed(digest.update, self._sample(place), place)
        return digest.hexdigest()

    def _sample(self, place: int) -> Any:
        try:
            return self._dataset[place]
        except CompressError:
            raise
        except Exception as error:
            raise self._unreadable(place, error) from error

    def _read(self, places: list[int]) -> Any:
        try:
            return self._dataset.__getitems__(places)
        except CompressError:
            raise
        except Exception as error:
            raise Unstable(
                f"samples {places[0]} to {places[-1]} of {self._walk.what} cannot be read together "
                f"({in_words(error)})"
            ) from error

    def _unreadable(self, place: int, error: Exception) -> Unstable:
        return Unstable(
            f"sample {place} of {self._walk.what} cannot be read ({in_words(error)}); its length "
            f"is {len(self._dataset)}"
        )

    def _feed(self, update: Callable[[Any], None], value: Any, place: int) -> None:
        kind = type(value)
        if kind is Tensor and _is_dense(value):
            self._feed_tensor(update, value)
        elif kind is tuple or kind is list:
            update(f"{kind.__name__}{len(value)} ".encode())
            numbers = numbers_of(value)
            if numbers is not None:
                update(numbers)
                return
            for part in value:
                self._feed(update, part, place)
        elif kind is dict and all(type(key) is str for key in value):
            update(f"dict{len(value)} ".encode())
            for key in sorted(value):
                self._feed(update, key, place)
                self._feed(update, value[key], place)
        elif _is_array(value):
            update(f"numpy{value.dtype.str}{value.dtype.names}{value.shape} ".encode())
            update(np.ascontiguousarray(value).tobytes())
        else:
            self._feed_other(update, value, place)

    def _feed_tensor(self, update: Callable[[Any], None], tensor: Tensor) -> None:
        kind = (tensor.dtype, tensor.shape)
        head = self._heads.get(kind)
        if head is None:
            head = self._heads[kind] = f"torch{tensor.dtype}{tuple(tensor.shape)} ".encode()
        update(head)
        if tensor.dtype in _OF_NUMPY and not tensor.requires_grad:
            update(tensor.numpy().tobytes())
            return
        if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg().contiguous()
        update(tensor.detach().reshape(-1).view(torch.uint8).numpy())

    def _feed_other(self, update: Callable[[Any], None], value: Any, place: int) -> None:
        token = plain_token(value)
        if token is None:
            step = f"sample {place}"
            token = self._walk.part("holds", step, value)
        update(f"plain{len(token)} ".encode())
        update(token)


def _is_array(value: Any) -> bool:
    is_plain = type(value) in (np.ndarray, np.memmap) or isinstance(value, np.generic)
    return is_plain and not value.dtype.hasobject


def _is_dense(tensor: Tensor) -> bool:
    is_here = tensor.device.type == "cpu" and tensor.layout is torch.strided
    return is_here and not tensor.is_quantized
