"""Backend: how candidates become files of one format, and what is known of such files.

A target runs files of one format, and its backend is what makes them. Everything outside of
``compress.backends`` goes through this contract; adding a format is a folder with a class that
keeps it, and a line in :data:`compress.backends.BACKENDS`. No torch: a backend loads what it needs
when it lowers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from compress.artifact import Artifact, Census, Lowering, OpenAxis
from compress.errors import LoweringError

if TYPE_CHECKING:
    from compress.candidate import Candidate
    from compress.modules.inputs import Inputs
    from compress.quantization.numerics import LayerFormat

__all__ = ["Backend", "check_formats", "check_open", "files_beside"]

_OF_A_TEXT = 2  # axes


@runtime_checkable
class Backend(Protocol):
    """One format of files.

    ``name`` is the format's, as in ``onnx``; ``suffix`` ends the names of its files, as in
    ``.onnx``; ``beside`` are what is appended to a file's name for those that belong to it, such
    as its external data.
    """

    @property
    def name(self) -> str:
        """The format, as in ``onnx``."""
        ...

    @property
    def suffix(self) -> str:
        """The end of a file's name, with its dot."""
        ...

    @property
    def beside(self) -> tuple[str, ...]:
        """What is appended to a file's name for the files that belong to it."""
        ...

    def lower(
        self,
        candidate: Candidate,
        lowering: Lowering,
        *,
        calibration: Sequence[Inputs],
        check: Inputs,
        path: Path,
    ) -> Artifact:
        """Export ``candidate``, encode its declared formats, write the file and check it.

        Args:
            candidate: left as it was.
            lowering: batch, opset and encoding that the target wants.
            calibration: batches of inputs for the ranges of static activations.
            check: real inputs that module and file are compared on, samples on axis 0.
            path: where the file is written.

        Raises:
            LoweringError: a model that cannot be exported or encoded.
            ParityError: a file that does not compute what the module computes.
            StorageError: the disk refused.
        """
        ...

    def census(self, path: Path) -> Census:
        """What a file is made of: operators, weights by type, multiply-accumulates.

        Raises:
            LoweringError: it cannot be read.
        """
        ...

    def files(self, path: Path) -> set[Path]:
        """The file and all others that it cannot be run without, as far as they are there."""
        ...


def files_beside(backend: Backend, path: Path) -> list[Path]:
    """A file and those that belong to it by their names, as far as they are there."""
    names = [path.name, *(path.name + end for end in backend.beside)]
    return [found for name in names if (found := path.with_name(name)).is_file()]


def check_formats(formats: Mapping[str, LayerFormat], refused: Sequence[tuple[str, str]]) -> None:
    """See that no layer has a format that a target refuses.

    Args:
        formats: the declared format of each layer.
        refused: names of formats, each with what the runtime does instead, as in
            :attr:`compress.artifact.Lowering.refused`.

    Raises:
        LoweringError: a layer has one of them.
    """
    for name, problem in refused:
        for layer, format in formats.items():
            if name in (format.weights, format.activations):
                raise LoweringError(
                    f"{layer or 'the model'} is declared {name}, and {problem}; quantize to "
                    "another format, or leave this target out."
                )


def check_open(
    formats: Mapping[str, LayerFormat], example: Inputs, open: Collection[OpenAxis]
) -> None:
    """See that a candidate can become a file that leaves axes open.

    Args:
        formats: the declared format of each layer.
        example: a batch of its inputs.
        open: the axes; with none there is nothing to see.

    Raises:
        LoweringError: a layer with activations of fixed ranges, or inputs that are no texts, of
            which the length is to be open.
    """
    for name, format in formats.items() if open else ():
        if format.needs_range:
            raise LoweringError(
                f"{name or 'the model'} is declared {format.weights} with {format.activations} "
                "activations of fixed ranges, whose form in a file has a fixed batch and length; "
                "take a row with `activations: dynamic` or with weights alone in integers."
            )
    inputs = list(example.values()) if isinstance(example, dict) else [example]
    is_text = all(t.dim() == _OF_A_TEXT and not t.is_floating_point() for t in inputs)
    if "length" in open and not (is_text and len({tuple(t.shape) for t in inputs}) == 1):
        given = ", ".join(f"{str(t.dtype)[len('torch.') :]} {tuple(t.shape)}" for t in inputs)
        raise LoweringError(
            "length: any is for texts, whose inputs are whole numbers of shape (n, tokens); the "
            f"inputs are {given}: leave length out."
        )
