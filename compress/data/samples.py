"""What a sample is, and what its inputs and its label are: asked here by everything that reads one.

Owns the words for it, the lists of numbers that are taken for tensors, and how samples of one form
become a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.fields import LABEL_KEYS
from compress.data.misfits import a_thing, input_cure, is_number_array, is_picture, label_cure
from compress.errors import CompressError, DataError, in_words

__all__ = [
    "SAMPLE",
    "as_labels",
    "collated",
    "holds_label",
    "in_float32",
    "label_tensors",
    "parted",
    "reading",
]

SAMPLE = (
    "a sample is an input, (input, label) or a dictionary, where an input is a tensor or a "
    "dictionary of tensors, a label a number or a tensor (or one for each output, in a dictionary "
    "by its name), and the label of a dictionary has the key label, labels, target or targets"
)
_NUMBERS = (Tensor, np.ndarray, np.number, np.bool_, int, float)
_FIELDS = "fields"
# torch computes next to nothing with them.
_WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


@contextmanager
def reading(what: str, dataset: Any) -> Iterator[None]:
    """Turns what the user's code raises while it gives samples into a sentence.

    An ``OSError`` of it is none of what a command writes.

    Raises:
        DataError: with what could not be read.
    """
    try:
        yield
    except CompressError:
        raise
    except Exception as error:
        kind = type(dataset).__name__
        raise DataError(f"{what} of the {kind} cannot be read ({in_words(error)}).") from error


def holds_label(sample: Any) -> bool:
    """Whether a sample has a place for a label, which may be ``None`` all the same."""
    if isinstance(sample, Mapping):
        return bool(LABEL_KEYS & sample.keys())
    return isinstance(sample, (tuple, list)) and len(sample) > 1


def parted(sample: Any, where: str, *, is_batch: bool = False) -> tuple[Any, Any]:
    """The inputs of a sample, or of a batch, and its label; the latter ``None`` where it has none.

    Labels for several outputs are a dictionary; those of a tuple whose parts differ in shape are by
    their place.

    Args:
        sample: of any of the forms that a sample may have.
        where: it is, for sentences.
        is_batch: whether it is a batch, whose tensors have samples on axis 0.

    Raises:
        DataError: it is no sample; in one sentence, with what one is.
    """
    if isinstance(sample, Mapping):
        inputs, label = _without_label(sample, where)
    elif isinstance(sample, (tuple, list)):
        inputs, label = _of_parts(sample, where)
    else:
        inputs, label = sample, None
    is_plain = type(label) in (int, float) or (
        type(label) is Tensor and label.dtype not in _WIDE_UNSIGNED
    )
    if not is_plain:
        label = as_labels(label, where, is_batch=is_batch)
    return _as_inputs(inputs, where), label


def as_labels(label: Any, where: str, *, is_batch: bool = False) -> Any:
    """The label of a sample or a batch: a number, a tensor, ``None``, or these by name.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(label, Mapping):
        return {str(name): _as_label(part, where, name) for name, part in label.items()}
    if isinstance(label, (tuple, list)) and _is_by_place(label, is_batch=is_batch):
        return {str(place): _as_label(part, where, place) for place, part in enumerate(label)}
    if is_batch and isinstance(label, (tuple, list)) and all(isinstance(x, Tensor) for x in label):
        return torch.stack(tuple(label), dim=1)  # as those of its samples are
    return _as_label(label, where)


def collated(samples: Sequence[Any], places: Sequence[int], name: str) -> tuple[Any, Any]:
    """Samples as one batch: its inputs, and its labels or ``None``.

    Where some samples have the label ``None``, it is one that is no class, or NaN.

    Args:
        samples: at least one.
        places: of the samples in their data set.
        name: of the data set's class.

    Raises:
        DataError: what is no sample, or samples that do not go together.
    """
    pairs = [
        parted(sample, f"sample {place} of the {name}")
        for place, sample in zip(places, samples, strict=True)
    ]
    labeled = [holds_label(sample) for sample in samples]
    if any(labeled) and not all(labeled):
        without, with_one = places[labeled.index(False)], places[labeled.index(True)]
        raise DataError(
            f"sample {without} of the {name} has no place for a label, and sample {with_one} has; "
            f"{SAMPLE}: a label that is not known is None."
        )
    inputs = _stacked([one for one, _ in pairs])
    if not any(labeled):
        return inputs, None
    return inputs, _collated_labels([label for _, label in pairs], places, name)


def in_float32(inputs: Any) -> Any:
    """The inputs with every floating-point tensor in float32, which is what models compute in."""
    if isinstance(inputs, dict):
        return {name: _float32(tensor) for name, tensor in inputs.items()}
    return _float32(inputs)


def label_tensors(labels: Any, where: str) -> Tensor | dict[str, Tensor]:
    """The labels of a batch as a tensor, or as tensors by name.

    Raises:
        DataError: they cannot be that.
    """
    if isinstance(labels, dict):
        return {name: _label_tensor(one, where) for name, one in labels.items() if one is not None}
    return _label_tensor(labels, where)


def _label_tensor(labels: Any, where: str) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where} has labels of the type {type(labels).__name__}, and {SAMPLE}."
        ) from error


def _without_label(sample: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
    named = sorted(LABEL_KEYS & sample.keys())
    if not named:
        return sample, None
    if len(named) > 1:
        raise DataError(
            f"{where} is a dictionary with both {named[0]!r} and {named[1]!r}, each of which may "
            f"be its label; say which: {_FIELDS}: {{inputs: [...], label: {named[0]}}}."
        )
    inputs = {name: part for name, part in sample.items() if name != named[0]}
    if not inputs:
        raise DataError(f"{where} is a dictionary of a label alone, and {SAMPLE}.")
    return inputs, sample[named[0]]


def _of_parts(sample: Sequence[Any], where: str) -> tuple[Any, Any]:
    if len(sample) == 1:  # as TensorDataset gives what has no labels
        return sample[0], None
    if len(sample) != 2:
        last = len(sample) - 1
        named = ", ".join(f"NAME: {place}" for place in range(last))
        more = (
            "; for other forms say which part is what, by the names of forward's parameters: "
            f"{_FIELDS}: {{inputs: {{{named}}}, label: {last}}}"
        )
        raise DataError(f"{where} has {len(sample)} parts, and {SAMPLE}{more if sample else ''}.")
    inputs, label = sample
    if isinstance(inputs, tuple):
        named = ", ".join(f"NAME: '0.{place}'" for place in range(len(inputs)))
        raise DataError(
            f"{where} has a tuple of {len(inputs)} for its input, and {SAMPLE}; say which part is "
            f"what, by the names of forward's parameters: {_FIELDS}: {{inputs: {{{named}}}, "
            "label: 1}."
        )
    both = sorted(LABEL_KEYS & inputs.keys()) if isinstance(inputs, Mapping) else []
    if both:
        raise DataError(
            f"{where} has a label, and an input {both[0]!r} that may be one; take it out of the "
            f"inputs, or say which parts are inputs: {_FIELDS}: {{inputs: {{NAME: '0.KEY'}}, "
            "label: 1}."
        )
    return inputs, label


def _as_inputs(inputs: Any, where: str) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _as_input(part, where, name) for name, part in inputs.items()}
    return _as_input(inputs, where)


def _as_input(part: Any, where: str, name: Any = None) -> Any:
    if _is_numbers(part):
        return _as_torch_reads(part)
    found = _numbers(part) if isinstance(part, (list, tuple)) else None
    if found is not None:
        return found
    of = "" if name is None else f" {name!r}"
    more = input_cure(part)
    if name is not None and not is_picture(part):
        more += f"; {_FIELDS} leaves out what is no input"
    raise DataError(f"{where} has {a_thing(part)} for its input{of}, and {SAMPLE}{more}.")


def _as_label(label: Any, where: str, name: Any = None) -> Any:
    of = "" if name is None else f" for {name!r}"
    if label is None or _is_numbers(label):
        return _as_torch_reads(label)
    cure = label_cure(label)
    if isinstance(label, str):
        raise DataError(f"{where} has the label {str(label)!r}{of}; {SAMPLE}{cure}.")
    found = _numbers(label) if isinstance(label, (list, tuple)) else None
    if found is None:
        raise DataError(f"{where} has {a_thing(label)} for its label{of}, and {SAMPLE}{cure}.")
    return found


def _is_by_place(label: Sequence[Any], *, is_batch: bool) -> bool:
    """Whether labels in a tuple are of different shapes, so that they are for several outputs."""
    if not any(isinstance(part, (Tensor, np.ndarray)) for part in label):
        return False
    if any(not (part is None or isinstance(part, _NUMBERS)) for part in label):
        return False
    shapes = [np.shape(part)[is_batch:] for part in label if part is not None]
    return len(shapes) < len(label) or len(set(shapes)) > 1


def _as_torch_reads(value: Any) -> Any:
    """A part of a sample, as an array that torch takes without an error or a warning.

    Unsigned numbers of more than 8 bits become signed ones. Arrays of another byte order, with an
    axis reversed (``image[:, ::-1]``), or that may not be written (``np.load(..., mmap_mode="r")``)
    are copied; all else stays as it is.
    """
    if isinstance(value, Tensor):
        return value.long() if value.dtype in _WIDE_UNSIGNED else value
    if isinstance(value, np.unsignedinteger) and value.itemsize > 1:
        return int(value)
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        return value.astype(np.int64)
    if value.dtype.isnative and value.flags.writeable and min(value.strides, default=0) >= 0:
        return value
    return np.array(value, dtype=value.dtype.newbyteorder("="), order="C")


def _is_numbers(part: Any) -> bool:
    if isinstance(part, np.ndarray):
        return is_number_array(part)
    return isinstance(part, _NUMBERS)


def _numbers(values: Sequence[Any]) -> Tensor | None:
    """A list of numbers, or of lists of them, as a tensor; ``None`` of any other."""
    first: Any = values
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    if not isinstance(first, (*_NUMBERS, list, tuple)):
        return None  # such as images of Pillow, of which NumPy makes arrays
    try:
        return torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError, RuntimeError):
        return None


def _stacked(values: list[Any]) -> Any:
    try:
        return torch.utils.data.default_collate(values)
    except (RuntimeError, TypeError, KeyError) as error:
        raise DataError(
            f"samples that do not make a batch ({str(error).splitlines()[0].rstrip('.')}); all "
            "inputs need one shape and one type, and so do all labels: resize, cut or pad them "
            f"({_FIELDS}: {{padding: 0}} pads sequences at their end)."
        ) from error


def _float32(value: Any) -> Tensor:
    tensor: Tensor = torch.as_tensor(value)
    return tensor.float() if tensor.is_floating_point() else tensor


def _collated_labels(labels: list[Any], places: Sequence[int], name: str) -> Any:
    """The labels of a batch: one tensor, or one by name where samples have them so."""
    kinds = [isinstance(label, dict) for label in labels if label is not None]
    if not any(kinds):
        return _stacked(_with_every_label(labels))
    if not all(kinds):
        one = places[next(i for i, x in enumerate(labels) if x is not None and type(x) is not dict)]
        raise DataError(
            f"sample {one} of the {name} has one label and others have them by name; {SAMPLE}."
        )
    names = dict.fromkeys(one for label in labels if label is not None for one in label)
    columns = {one: [None if x is None else x.get(one) for x in labels] for one in names}
    return {one: _stacked(_with_every_label(column)) for one, column in columns.items()}


def _with_every_label(labels: list[Any]) -> list[Any]:
    """The labels with one of no class, or of NaN, in the place of ``None``."""
    if all(label is not None for label in labels):
        return labels
    known = [torch.as_tensor(label) for label in labels if label is not None]
    missing = torch.tensor(math.nan)
    if known and known[0].is_floating_point():
        missing = torch.full_like(known[0], math.nan)
    elif known:
        # Of bytes, -1 would be 255.
        known = [label.long() for label in known]
        missing = torch.full_like(known[0], -1)
    return [
        missing if label is None else torch.as_tensor(label).to(missing.dtype) for label in labels
    ]
