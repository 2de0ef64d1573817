"""ONNX files as teachers: which output teaches, what the file takes, and batches of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from compress.artifact import file_sha256, model_files
from compress.backends.onnx.feeds import batches
from compress.backends.onnx.files import EXTERNAL_ABOVE_BYTES, external_files
from compress.backends.onnx.session import Array, run
from compress.config.fields import LARGEST_BATCH
from compress.config.recipe_file import located
from compress.errors import DataError, LoweringError, RecipeError
from compress.io.files import named, regular_file
from compress.measure.runtime_errors import readable_error
from compress.modules.inputs import Inputs, batch_size_of, to_device
from compress.modules.outputs import Outputs

__all__ = ["OnnxTeacher", "open_teacher"]

_FATAL_ONLY = 4
_DTYPES = MappingProxyType(
    {
        "tensor(float)": torch.float32,
        "tensor(float16)": torch.float16,
        "tensor(double)": torch.float64,
        "tensor(int64)": torch.int64,
        "tensor(int32)": torch.int32,
        "tensor(int16)": torch.int16,
        "tensor(int8)": torch.int8,
        "tensor(uint8)": torch.uint8,
        "tensor(bool)": torch.bool,
    }
)
# Operators that leave probabilities as they are.
_PASSING = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})
_OR_WRAP_IT = "or wrap it in a callable (teacher: {callable: module:name})"


@dataclass(frozen=True)
class OnnxTeacher:
    """An ONNX file as a function of a batch.

    Args:
        path: of the file.
        session: of onnxruntime.
        outputs: the names of the outputs that teach.
        is_named: whether one output comes by its name, as several do, and not as a tensor.
    """

    path: Path
    session: Any
    outputs: tuple[str, ...]
    is_named: bool = False

    def __call__(self, inputs: Inputs) -> Outputs:
        """The file's outputs ``(n, ...)`` for a batch, in float32, in parts of its fixed batch.

        Several are by name.

        Raises:
            DataError: it takes other inputs than the task's, or gives no row for each sample.
        """
        feeds = self._feeds(to_device(inputs, torch.device("cpu")))
        parts: Iterator[tuple[dict[str, Array], int]] = batches([feeds], self.session)
        if not self.session.get_inputs()[0].shape:  # it does not say what axes it takes
            whole = {name: tensor.numpy() for name, tensor in feeds.items()}
            parts = iter([(whole, batch_size_of(inputs))])
        rows = [[array[-new:] for array in self._run(feed)] for feed, new in parts]
        columns = zip(*rows, strict=True)
        given = [torch.from_numpy(np.concatenate(column)).float() for column in columns]
        if len(given) == 1 and not self.is_named:
            return given[0]
        return dict(zip(self.outputs, given, strict=True))

    @property
    def identity(self) -> str:
        """Checksums of the file and of its external data, and the names of the outputs."""
        known = {part.resolve() for part in model_files(self.path)}
        parts = {part.resolve() for part in external_files(self.path)} - known
        sums = [file_sha256(self.path), *(file_sha256(part) for part in sorted(parts))]
        return f"{' '.join(sums)} {' '.join(self.outputs)}"

    def softmax(self, output: str | None) -> str | None:
        """A clause that says that an output is a softmax; ``None`` where it is none.

        Args:
            output: its name; ``None`` for the only one.
        """
        name = output if output in self.outputs else self.outputs[0]
        before = _before_softmax(self.path, name)
        if before is None:
            return None
        is_output = any(port.name == before for port in self.session.get_outputs())
        of = f"the softmax of its output {before!r}" if is_output else "made by a Softmax"
        return f"its output {name!r} is {of}"

    def _run(self, feed: dict[str, Array]) -> list[Array]:
        size = len(next(iter(feed.values())))
        try:
            outputs = run(self.session, list(self.outputs), feed)
        except LoweringError as error:
            words = readable_error(str(error.__cause__ or error)).rstrip(".")
            takes = _listed(self.session.get_inputs())
            raise _refusal(self.path, f"the file takes {takes}; {words}") from error
        for name, array in zip(self.outputs, outputs, strict=True):
            if array.shape[:1] != (size,):
                raise _refusal(
                    self.path,
                    f"its output {name!r} is {array.shape} for a batch of {size}, and a teacher "
                    f"gives a row for each sample; name another output, {_OR_WRAP_IT}",
                )
        return outputs

    def _feeds(self, inputs: Inputs) -> dict[str, Tensor]:
        """The batch by the names of the file's inputs, in the file's dtypes."""
        ports = {port.name: port for port in self.session.get_inputs()}
        if isinstance(inputs, dict):
            given, named = str(sorted(inputs)), inputs
        else:
            given, named = "one tensor", {next(iter(ports)): inputs}
        if set(named) != set(ports):
            raise _refusal(
                self.path,
                f"the file takes the inputs {sorted(ports)} and the task gives {given}, which is "
                "all that a teacher is shown (it keeps no state from one batch to the next); "
                f"export it with the task's inputs, {_OR_WRAP_IT}",
            )
        return {name: self._fitted(named[name], port) for name, port in ports.items()}

    def _fitted(self, tensor: Tensor, port: Any) -> Tensor:
        wanted = _DTYPES.get(port.type)
        if wanted is None or not (_has_axes(tensor, port.shape) and _fits(tensor, wanted)):
            given = _formatted(_name(tensor.dtype), ["n", *tensor.shape[1:]])
            raise _refusal(
                self.path,
                f"its input {port.name!r} is {_described(port)} and the task gives {given}; export "
                f"it for what the task gives, {_OR_WRAP_IT}",
            )
        return tensor.to(wanted)


def open_teacher(given: Path, wanted: Sequence[str] | None = None) -> OnnxTeacher:
    """The file as a teacher.

    Args:
        given: the file, as a recipe names it.
        wanted: which outputs teach; ``None`` for all that are floats.

    Raises:
        RecipeError: no such file or output, or one of no floats.
        DataError: a file that onnxruntime cannot load, or that has no inputs.
    """
    path = located(given)
    session = _session(path)
    inputs = session.get_inputs()
    if not inputs:
        problem = "the file takes no inputs, so that its output is the same for all samples"
        raise _refusal(path, f"{problem}; a teacher takes the task's")
    if any(port.shape[:1] == [0] for port in inputs):
        problem = f"the file takes {_listed(inputs)}, which is a batch of no samples"
        raise _refusal(path, f"{problem}; export it with a batch of 1 or a free one")
    sizes = [size for port in inputs for size in port.shape[:1] if isinstance(size, int)]
    if max(sizes, default=1) > LARGEST_BATCH:
        problem = f"the file takes a batch of {max(sizes):,}, and {LARGEST_BATCH:,} is the largest"
        raise _refusal(path, f"{problem}; export it with a batch of 1 or a free one")
    return OnnxTeacher(path, session, _chosen(path, session.get_outputs(), wanted or ()))


def _session(path: Path) -> Any:
    regular_file(path, RecipeError, where="teacher.onnx: ")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    try:
        # Falling back would be to the same provider, with a banner on standard output.
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises its own classes, which share no base
        words = named(readable_error(str(error)).rstrip("."))
        # Garbled names come back as words that cannot be decoded.
        if "protobuf" in words.lower() or isinstance(error, UnicodeDecodeError):
            words = f"{words}; the file is damaged, or no ONNX: export or copy it again"
        raise _refusal(path, words) from error


def _before_softmax(path: Path, output: str) -> str | None:
    """The tensor that a last softmax makes the output of; a LogSoftmax is none: it gives logits."""
    if os.path.getsize(path) > EXTERNAL_ABOVE_BYTES:  # and protobuf holds no more
        return None
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # onnxruntime has formats of its own
        return None
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    return str(node.input[0]) if node is not None and node.op_type == "Softmax" else None


def _chosen(path: Path, outputs: Sequence[Any], wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of the outputs that teach: those that are wanted, or all floats."""
    if not outputs:
        raise _refusal(path, "the file has no output; export it with its scores as one")
    ports = {port.name: port for port in outputs}
    if unknown := [name for name in wanted if name not in ports]:
        has = f"the file has {_listed(outputs)}"
        raise RecipeError(f"teacher.output: {path}: there is no {unknown[0]!r}; {has}.")
    can_teach = [port.name for port in outputs if _is_float(port)]
    wrong = [ports[name] for name in wanted if name not in can_teach]
    if wrong or not can_teach:
        first = wrong[0] if wrong else outputs[0]
        cure = f"set `output: {can_teach[0]}`" if can_teach else _OR_WRAP_IT.removeprefix("or ")
        raise RecipeError(
            f"teacher.onnx: {path}: the output {first.name!r} is {_described(first)}, and "
            f"a teacher returns float32, float16 or float64; {cure}."
        )
    return tuple(dict.fromkeys(wanted)) or tuple(can_teach)


def _refusal(path: Path, problem: str) -> DataError:
    return DataError(f"teacher.onnx: {named(path)}: {problem}.")


def _has_axes(tensor: Tensor, wanted: Sequence[Any]) -> bool:
    if not wanted:  # nothing is known of them
        return True
    pairs = zip(tensor.shape[1:], wanted[1:], strict=False)
    same_rank = tensor.dim() == len(wanted)
    return same_rank and all(size == there or not isinstance(there, int) for size, there in pairs)


def _fits(tensor: Tensor, wanted: torch.dtype) -> bool:
    """Whether the values stay what they are: other floats for floats, whole for whole numbers."""
    if tensor.dtype == wanted or wanted.is_floating_point:
        return tensor.is_floating_point() == wanted.is_floating_point
    if tensor.is_floating_point() or torch.bool in (tensor.dtype, wanted) or not tensor.numel():
        return False
    limits = torch.iinfo(wanted)
    return limits.min <= int(tensor.min()) and int(tensor.max()) <= limits.max


def _is_float(port: Any) -> bool:
    dtype = _DTYPES.get(port.type)
    return dtype is not None and dtype.is_floating_point


def _listed(ports: Sequence[Any]) -> str:
    return " and ".join(f"{port.name} {_described(port)}" for port in ports)


def _described(port: Any) -> str:
    dtype = _DTYPES.get(port.type)
    return _formatted(port.type if dtype is None else _name(dtype), port.shape)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _formatted(dtype: str, axes: Sequence[Any]) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in axes)
    return f"{dtype} ({sizes})" if axes else dtype
