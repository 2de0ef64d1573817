"""Open sizes: files whose batch or length a target leaves open, and the sizes that it measures.

::

    batch: any                   one file for every number of samples; timed with 1 and with 8
    sizes: [1, 32]               with these numbers of samples
    length: any                  one file for texts of every length; `sizes` are lengths then, and
                                 with `batch: any` pairs: [[1, 16], [8, 64]]

The first size is the one of the row's own numbers; what is timed at the others is beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from compress.artifact import OpenAxis
from compress.config.fields import LARGEST_BATCH, Whole
from compress.config.settings import Settings
from compress.measure.target import Array, Failure, Target, Timing
from compress.record import SizeTiming

__all__ = ["Batch", "MeasuredSize", "OpenSizes", "Sized", "open_axes", "size_timing", "sizes_of"]

_LONGEST, _MOST_SIZES = 65_536, 16
_BATCHES = (1, 8)

_OneBatch = Annotated[Whole, Field(ge=1, le=LARGEST_BATCH)]
_OneSize = Annotated[Whole, Field(ge=1, le=_LONGEST)]
_Pair = tuple[_OneBatch, _OneSize]

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing only from Python 3.11 on

    Batch = int | Literal["any"]
    Size = int | tuple[int, int]
else:
    # Tags are no keys of a recipe, so that messages about a value are about the form that it has.
    #: Samples of one inference, or a file that takes any number of them.
    Batch = Annotated[
        Annotated[_OneBatch, Tag("of-number")] | Annotated[Literal["any"], Tag("of-any")],
        Discriminator(lambda value: "of-any" if isinstance(value, str) else "of-number"),
    ]
    Size = Annotated[
        Annotated[_OneSize, Tag("of-number")] | Annotated[_Pair, Tag("of-pair")],
        Discriminator(lambda value: "of-pair" if isinstance(value, (list, tuple)) else "of-number"),
    ]


@dataclass(frozen=True)
class MeasuredSize:
    """Sizes of one inference: ``batch`` samples, of ``length`` tokens where that is open."""

    batch: int
    length: int | None = None

    @property
    def name(self) -> str:
        """As in ``8`` or ``8x64``, for files and sentences."""
        return str(self.batch) if self.length is None else f"{self.batch}x{self.length}"

    def cut(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The first ``length`` tokens of inputs ``(n, tokens)``, or all."""
        return {name: array[:, : self.length] for name, array in inputs.items()}


class OpenSizes(Settings):
    """Settings of a target that may leave sizes open."""

    length: Literal["any"] | None = None
    """``any`` makes files that take texts of any length. Where not given, the length is that of the
    task."""
    sizes: Annotated[tuple[Size, ...], Field(max_length=_MOST_SIZES)] = ()
    """What is measured at where sizes are open, the row's own numbers first: numbers, or pairs of
    batch and length where both are open. Where not given, batches of 1 and 8."""

    if TYPE_CHECKING:

        @property
        def batch(self) -> int | Literal["any"]:
            """Samples of one inference, or any number of them."""

    @model_validator(mode="after")
    def _sizes_are_of_what_is_open(self) -> Self:
        if self.sizes and not self.open:
            raise ValueError("sizes are for a target with batch: any or length: any")
        if self.length is not None and not self.sizes:
            given = "[[1, 16], [8, 64]]" if self.batch == "any" else "[16, 64]"
            raise ValueError(f"length: any needs the sizes to measure at, such as sizes: {given}")
        pairs = [isinstance(size, tuple) for size in self.sizes]
        if len(self.open) > 1 and not all(pairs):
            raise ValueError(
                "sizes are pairs where batch and length are open, such as [[1, 16], [8, 64]]"
            )
        if len(self.open) == 1 and any(pairs):
            raise ValueError(f"sizes are numbers where only {self.open[0]} is open, such as [1, 8]")
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError("one of the sizes is there twice")
        return self

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {key: v for key, v in content.items() if v or key not in ("length", "sizes")}

    @property
    def open(self) -> tuple[OpenAxis, ...]:
        """Which axes of the files are open."""
        batch: tuple[OpenAxis, ...] = ("batch",) if self.batch == "any" else ()
        return batch if self.length is None else (*batch, "length")

    @property
    def measured_sizes(self) -> tuple[MeasuredSize, ...]:
        """What is measured at, the row's own numbers first; none where nothing is open."""
        if not self.open:
            return ()
        if self.length is None:
            return tuple(MeasuredSize(_number(size)) for size in self.sizes or _BATCHES)
        return tuple(
            MeasuredSize(*size) if isinstance(size, tuple) else MeasuredSize(self.run_batch, size)
            for size in self.sizes
        )

    @property
    def run_batch(self) -> int:
        """Samples of one inference: of the first size, where any number would do."""
        if self.batch != "any":
            return self.batch
        first = self.sizes[0] if self.sizes else _BATCHES[0]
        return first[0] if isinstance(first, tuple) else first

    def at(self, size: MeasuredSize) -> Self:
        """The target with that many samples in an inference, and nothing that is open."""
        return self.model_copy(update={"batch": size.batch, "length": None, "sizes": ()})


@runtime_checkable
class Sized(Protocol):
    """A target that measures at several sizes."""

    @property
    def open(self) -> tuple[OpenAxis, ...]:
        """Which axes of its files are open."""
        ...

    @property
    def measured_sizes(self) -> tuple[MeasuredSize, ...]:
        """What it measures at; none where nothing is open."""
        ...

    def at(self, size: MeasuredSize, /) -> Target:
        """The target at one of them."""
        ...


def sizes_of(target: Target) -> tuple[MeasuredSize, ...]:
    """The sizes that a target measures at; none where its files have one."""
    return target.measured_sizes if isinstance(target, Sized) else ()


def open_axes(target: Target) -> tuple[OpenAxis, ...]:
    """Which axes of a target's files are open, without asking its device."""
    return target.open if isinstance(target, Sized) else ()


def size_timing(size: MeasuredSize, timings: Sequence[Timing | Failure]) -> SizeTiming:
    """What the record has of one size: the last of ``timings``, against the first."""
    own, base = timings[-1], timings[0]
    if isinstance(own, Failure):
        return SizeTiming(batch=size.batch, length=size.length)
    speedup = None if isinstance(base, Failure) else own.speedup
    return SizeTiming(batch=size.batch, length=size.length, latency=own.latency, speedup=speedup)


def _number(size: int | tuple[int, int]) -> int:
    assert isinstance(size, int)
    return size
