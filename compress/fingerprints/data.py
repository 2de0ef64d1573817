"""Digests of data sets: by what they say of themselves, by what they consist of, or by reading."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, StackDataset, Subset, TensorDataset

from compress.data.named_fields import FieldsDataset
from compress.data.splits import CollatedDataset
from compress.data.views import FirstSamples, InputsOnly
from compress.errors import CompressError, DataError, in_words
from compress.fingerprints.arrays import DataDigestCache
from compress.fingerprints.code import begin, code_fingerprint
from compress.fingerprints.content_walk import ContentWalk, Unstable, in_a_clause
from compress.fingerprints.in_memory import READERS, attributes_read
from compress.fingerprints.samples import SampleDigests
from compress.task import Dataset

__all__ = ["data_fingerprint"]

# Classes of which nothing but the attributes decides what the samples are.
_OF_TORCH = (ConcatDataset, StackDataset, Subset, TensorDataset)
_OWN = ("compress.tasks.", "compress.data.")
_VIEWS = (Subset, FirstSamples, InputsOnly)
_OFFER = "fingerprint"
_READ_TWICE = 16
_CHUNK = 256
_MISSING = object()


def data_fingerprint(dataset: Dataset, what: str, memory: DataDigestCache | None = None) -> str:
    """The digest of all samples of a data set, in 32 hex digits.

    A data set's own ``fingerprint`` (a text, or a method that gives one) is taken where it has one.
    Arrays in memory are hashed as they are, and remembered; of other data every sample is read, and
    a few of them twice.

    Args:
        dataset: the data set.
        what: what it is, for sentences, such as "the training data".
        memory: what was hashed before.

    Raises:
        Unstable: two reads of a sample differ, or a sample holds what cannot be compared.
        DataError: its ``fingerprint`` is no text.
    """
    with in_a_clause(what):
        return _Data(what, DataDigestCache() if memory is None else memory).digest(dataset)


@dataclass(frozen=True)
class _Data:
    """Digests of data sets, and of those that they are made of."""

    what: str
    memory: DataDigestCache

    def digest(self, dataset: Any) -> str:
        """By what a data set says or consists of; of a part of another, by its samples."""
        if not _is_view(dataset) or _offers(_base_of(dataset)):
            return self._whole(dataset)
        if not _is_held(_base_of(dataset)):
            return self._read(dataset)
        # What is edited elsewhere in the arrays, such as in a test split, is none of its own.
        return self.memory.recalled(self._whole(dataset), lambda: self._read(dataset))

    def _whole(self, dataset: Any) -> str:
        """By all that it consists of, whether or not it comes to be a part of its samples."""
        walk, own = begin(self.what, self.memory), type(dataset)
        if _offers(dataset):
            walk.put("offered", _own_fingerprint(dataset, self.what))
            walk.put("by", _class_of(own))
        elif isinstance(dataset, (Tensor, np.ndarray)):
            walk.visit(dataset)
        elif _is_known(own):
            walk.put("data set", f"{own.__module__}.{own.__qualname__}")
            self._put_attributes(walk, _content(dataset), own is FieldsDataset)
        elif (read := attributes_read(dataset)) is not None:
            walk.put("data set in memory", str(len(dataset)))
            for name in READERS:
                walk.put("reads by", name)
                walk.visit(getattr(own, name, None))
            self._put_attributes(walk, read)
        else:
            return self._read(dataset)
        return walk.finish()

    def _put_attributes(
        self, walk: ContentWalk, attributes: dict[str, Any], is_form: bool = False
    ) -> None:
        # What gives the samples of another data set in another form depends on these alone.
        digest = self.digest if is_form else self._whole
        for name, value in sorted(attributes.items()):
            walk.put("attribute", name)
            parts = _parts(value)
            if parts is None:
                walk.step("holds", name, value)
                continue
            walk.put("data sets", f"{type(value).__name__} {len(parts)}")
            for key, part in parts:
                walk.put(key, digest(part))

    def _read(self, dataset: Any) -> str:
        """By reading all samples."""
        walk, count = begin(self.what, self.memory), len(dataset)
        walk.put("samples", str(count))
        places = np.linspace(0, count - 1, min(_READ_TWICE, count)).astype(int).tolist()
        with _random_as_it_was():
            samples = SampleDigests(walk, dataset)
            for place in places:  # before all are read, which may take long
                walk.put("sample", samples.twice(place))
            if hasattr(dataset, "__getitems__"):
                for start in range(0, count, _CHUNK):
                    walk.put("batch", samples.batch(range(start, min(start + _CHUNK, count))))
            else:
                walk.put("content", samples.all(count))
        return walk.finish()


def _content(dataset: Any) -> dict[str, Any]:
    """The attributes, less those that are worked out of the others when they are asked for."""
    own = type(dataset)
    return {
        name: value
        for name, value in vars(dataset).items()
        if not isinstance(inspect.getattr_static(own, name, None), cached_property)
    }


def _is_known(cls: type) -> bool:
    """Whether nothing but the attributes of a data set decides what its samples are."""
    if cls is CollatedDataset:  # its function may draw random numbers
        return False
    return cls in _OF_TORCH or cls.__module__.startswith(_OWN)


def _is_view(dataset: Any) -> bool:
    """Whether it gives some of the samples of another data set, or some of each sample."""
    return type(dataset) in _VIEWS


def _base_of(view: Any) -> Any:
    while _is_view(view):
        view = view.dataset if type(view) is Subset else view._dataset
    return view


def _is_held(dataset: Any) -> bool:
    """Whether a digest of it reads no sample."""
    if _offers(dataset) or isinstance(dataset, (Tensor, np.ndarray)):
        return True
    if not _is_known(type(dataset)):
        return attributes_read(dataset) is not None
    parts = [_parts(value) or [] for value in vars(dataset).values()]
    return all(_is_held(part) for _, part in chain.from_iterable(parts))


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """The data sets that an attribute is or holds, by name; ``None`` of other things."""
    several: list[Any] = [value]
    names: Iterable[Any] = ["itself"]
    if isinstance(value, (list, tuple)):
        several, names = list(value), range(len(value))
    elif isinstance(value, dict):
        several, names = list(value.values()), value
    if not several or not all(map(_is_dataset, several)):
        return None
    return sorted(zip(map(str, names), several, strict=True), key=lambda part: part[0])


def _is_dataset(value: Any) -> bool:
    is_plain = isinstance(value, (Tensor, np.ndarray, str, bytes, dict, list, tuple, range))
    return not is_plain and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _offers(dataset: Any) -> bool:
    """Whether it says of itself what it is; not one that passes on what another says."""
    return inspect.getattr_static(dataset, _OFFER, _MISSING) is not _MISSING


def _own_fingerprint(dataset: Any, what: str) -> str:
    try:
        said = getattr(dataset, _OFFER)
        said = said() if callable(said) else said
    except CompressError:
        raise
    except Exception as error:
        raise DataError(
            f"{what}: the data set's own `{_OFFER}` failed with {in_words(error)}; it is a text "
            "that changes when the data do, or a method without arguments that gives one."
        ) from error
    if not isinstance(said, str) or not said:
        given = "empty" if said == "" else f"of the type {type(said).__name__}"
        raise DataError(
            f"{what}: the data set's own `{_OFFER}` is {given}; it is a text that changes when the "
            "data do, or a method without arguments that gives one."
        )
    return said


def _class_of(cls: type) -> str:
    """The class by its code, or by its name where the code cannot be known."""
    try:
        return code_fingerprint(cls)
    except Unstable:
        return f"{cls.__module__}.{cls.__qualname__}"


@contextmanager
def _random_as_it_was() -> Iterator[None]:
    # A data set that draws random numbers is read here, and must draw the same in the run.
    state, legacy = random.getstate(), np.random.get_state(legacy=False)
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices), torch.no_grad():
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(legacy)
