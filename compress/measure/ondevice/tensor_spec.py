"""A model's inputs and outputs as data: names, types, and sizes that may be open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

from compress.measure.ondevice.jobs import JobError

if TYPE_CHECKING:
    from typing import Any

    Array = np.ndarray[Any, Any]
    #: Arrays by the name of a model's input: what one inference takes.
    Feed = dict[str, Array]

__all__ = ["Declared", "TensorSpec", "pairs", "specs_of"]

Left = TypeVar("Left")
Right = TypeVar("Right")

_DTYPES = {"float": "float32", "double": "float64", "string": "object"}
_SAME_NAME = {
    "float16",
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


class TensorSpec(NamedTuple):
    """One input or output; ``None`` is a size that the file leaves open, ``axes`` are their names.

    onnxruntime shows an input that may have any number of axes as a scalar.
    """

    name: str
    type: str
    shape: list[int | None]
    axes: list[str]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type that the input takes."""
        found = re.fullmatch(r"(?:optional\()?tensor\((\w+)\)+", self.type)
        if found is None:
            raise JobError(
                f"the input {self.name!r} has type {self.type}; only tensors can be fed to it here."
            )
        element = found[1]
        if element not in _DTYPES and element not in _SAME_NAME:
            raise JobError(
                f"the input {self.name!r} has type {self.type}, which numpy cannot hold; a Cast "
                "from float32 before it would do."
            )
        return np.dtype(_DTYPES.get(element, element))

    def taken(self, array: Array) -> Array:
        """``array``, of which values can be had in the input's type."""
        if self.dtype.kind == "O":
            takes, fits = "strings", array.dtype.kind in "OSU"
        else:
            takes, fits = str(self.dtype), np.can_cast(array.dtype, self.dtype, "same_kind")
        if not fits:
            raise JobError(f"the input {self.name!r} takes {takes}; got {array.dtype}.")
        return array

    def declared(self) -> str:
        """Its shape as in the file."""
        sizes = [
            (name or "?") if size is None else str(size)
            for size, name in pairs(self.shape, self.axes)
        ]
        return f"[{', '.join(sizes)}]"


class Declared(Protocol):
    """An input or output as a runtime tells it: open sizes are names, or anything but a size."""

    @property
    def name(self) -> str:
        """As the file has it."""
        ...

    @property
    def type(self) -> str:
        """As in ``tensor(float)``."""
        ...

    @property
    def shape(self) -> Sequence[object]:
        """A size or a name for each axis."""
        ...


def specs_of(values: Iterable[Declared]) -> list[TensorSpec]:
    """What a runtime tells of some inputs or outputs, in order."""
    found = []
    for value in values:
        fixed = [size if isinstance(size, int) and size >= 0 else None for size in value.shape]
        # Some exporters call every open axis "?", which is no name.
        names = [s if isinstance(s, str) and re.search(r"\w", s) else "" for s in value.shape]
        found.append(TensorSpec(value.name, value.type, fixed, names))
    return found


def pairs(left: Sequence[Left], right: Sequence[Right]) -> Iterator[tuple[Left, Right]]:
    """Elements at the same place of two sequences of one length."""
    # Python 3.9 has no zip(strict=True), and both sides are always of one length here.
    return ((left[i], right[i]) for i in range(len(left)))
