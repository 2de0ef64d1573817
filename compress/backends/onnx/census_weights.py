"""What a file stores: the bytes of its constants by type, and which of them are weights.

A weight is a number of any constant with axes (initializer, ``Constant`` node, sparse or packed, of
the graph, of a body or of a local function), less what is a scale, a zero point, a shape, an index
(int64), a mask (bool) or text.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from compress.backends.onnx.census_graph import attributes_of, bodies
from compress.backends.onnx.census_packed import PACKED, packed_weights
from compress.errors import LoweringError

__all__ = ["File", "Weights", "count_weights", "read_file"]

# Inputs that hold scales and zero points, and (weight, zero point, axis of its channels).
_PARAMETERS = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8), "MatMulInteger": (2, 3), "ConvInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5), "DynamicQuantizeMatMul": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11), "QAttention": (3, 4, 6, 7),
    "MatMulNBits": (2, 3, 4), "MatMulBnb4": (2,), "GatherBlockQuantized": (2, 3),
    "QMoE": (3, 6, 9, 11, 12, 13),
}  # fmt: skip
_ZERO_POINTS = {
    "DequantizeLinear": ((0, 2, 1),), "QLinearConv": ((3, 5, 0),), "ConvInteger": ((1, 3, 0),),
    "QLinearMatMul": ((3, 5, -1),), "QGemm": ((3, 5, 1),), "MatMulInteger": ((1, 3, -1),),
    "MatMulIntegerToFloat": ((1, 5, -1),), "DynamicQuantizeMatMul": ((1, 3, -1),),
    "DynamicQuantizeLSTM": ((1, 9, 0), (2, 11, 0)), "QAttention": ((1, 7, -1),),
}  # fmt: skip
_NOT_WEIGHTS = {"int64", "bool", "string"}
_FLOATS = {"float32", "float64"}

# What a weight passes on its way to the operator that computes with it.
_ON_THE_WAY = {
    "Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StoredTensor:
    """One stored tensor; ``stored`` is what it takes in the file. Of a sparse one the values."""

    name: str
    type: str
    dims: tuple[int, ...]
    tensor: TensorProto
    stored: int

    def array(self) -> Array:
        """What it holds.

        Raises:
            LoweringError: not as much as its shape says.
        """
        try:
            return np.asarray(numpy_helper.to_array(self.tensor))
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise LoweringError(
                f"the constant {self.name!r} does not hold what its shape and type say ({error}); "
                "the file is damaged."
            ) from error


@dataclass(frozen=True)
class _Scope:
    """The nodes and constants of a graph or a local function, those of its bodies included."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[StoredTensor] = field(default_factory=list)


@dataclass(frozen=True)
class File:
    """A model with its external data, and the size of all of its files together."""

    model: onnx.ModelProto
    scopes: tuple[_Scope, ...]
    size: int


@dataclass(frozen=True)
class Weights:
    """Stored bytes by type, and numbers: all, those that are not zero, floats by their operator."""

    bytes: dict[str, int]
    total: int
    nonzero: int
    floats: dict[str, int]


def read_file(path: Path) -> File:
    """The model at ``path``.

    Raises:
        LoweringError: not an ONNX file, or one whose external data is not there.
    """
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        files = _Files(path)
        scopes = tuple(_scopes(model, files))
        load_external_data_for_model(model, str(path.parent))
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise LoweringError(
            f"{path}: not a readable ONNX file ({str(error).strip() or 'it is damaged'}); it may "
            "be truncated, or its external data may be missing."
        ) from error
    if not model.graph.node:
        raise LoweringError(f"{path}: not an ONNX model: it holds no operators.")
    return File(model, scopes, sum(files.sizes.values()))


def count_weights(file: File) -> Weights:
    """What the constants of ``file`` are.

    Raises:
        LoweringError: a constant that does not hold what its shape says.
    """
    by_type: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    total = nonzero = 0
    for scope in file.scopes:
        uses = _Uses(scope)
        for constant in scope.constants:
            by_type[constant.type] += constant.stored
            if constant.dims and constant.type not in _NOT_WEIGHTS and not uses.sets(constant.name):
                count, left = uses.numbers(constant)
                total, nonzero = total + count, nonzero + left
                # Biases and the scales of norms, which have one axis, stay in float everywhere.
                if constant.type in _FLOATS and len(constant.dims) > 1:
                    floats[uses.reader(constant.name)] += count
    return Weights(dict(sorted(by_type.items())), total, nonzero, dict(floats))


# -- reading ----------------------------------------------------------------------------------


class _Files:
    """The sizes of a model's files, and which parts of them belong to a constant already."""

    def __init__(self, path: Path) -> None:
        self.sizes = {path: path.stat().st_size}
        self._folder = path.parent
        self._seen: set[tuple[str, int]] = set()

    def stored(self, tensor: TensorProto) -> int:
        """Bytes of ``tensor`` in the files; 0 for what another one, too, is made of."""
        if tensor.data_location != TensorProto.EXTERNAL:
            return int(len(tensor.raw_data) or _size_of_values(tensor))
        entries = {entry.key: entry.value for entry in tensor.external_data}
        beside = self._folder / entries.get("location", "")
        self.sizes.setdefault(beside, beside.stat().st_size)
        offset = int(entries.get("offset") or 0)
        if (str(beside), offset) in self._seen:
            return 0
        self._seen.add((str(beside), offset))
        return int(entries.get("length") or self.sizes[beside] - offset)


def _size_of_values(tensor: TensorProto) -> int:
    # As numbers of a field each, which protobuf stores in as few bytes as they need.
    bare = TensorProto(
        dims=tensor.dims,
        data_type=tensor.data_type,
        name=tensor.name,
        doc_string=tensor.doc_string,
    )
    return max(0, int(tensor.ByteSize()) - int(bare.ByteSize()))


def _scopes(model: onnx.ModelProto, files: _Files) -> Iterator[_Scope]:
    main = _Scope()
    _gather(model.graph, main, files)
    yield main
    for function in model.functions:
        own = _Scope()
        _gather_nodes(function.node, own, files)
        yield own


def _gather(graph: onnx.GraphProto, scope: _Scope, files: _Files) -> None:
    for tensor in graph.initializer:
        scope.constants.append(_constant(tensor.name, tensor, files))
    for sparse in graph.sparse_initializer:
        scope.constants.append(_sparse(sparse.values.name, sparse, files))
    _gather_nodes(graph.node, scope, files)


def _gather_nodes(nodes: Iterable[onnx.NodeProto], scope: _Scope, files: _Files) -> None:
    for node in nodes:
        scope.nodes.append(node)
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                scope.constants.extend(_held(node.output[0], attribute, files))
        for body in bodies(node):
            _gather(body, scope, files)


def _held(name: str, attribute: onnx.AttributeProto, files: _Files) -> Iterator[StoredTensor]:
    if attribute.HasField("t"):
        yield _constant(name, attribute.t, files)
    elif attribute.HasField("sparse_tensor"):
        yield _sparse(name, attribute.sparse_tensor, files)
    elif attribute.floats:
        values = helper.make_tensor(
            name, TensorProto.FLOAT, [len(attribute.floats)], attribute.floats
        )
        yield _constant(name, values, files)


def _constant(name: str, tensor: TensorProto, files: _Files) -> StoredTensor:
    return StoredTensor(name, _type(tensor), tuple(tensor.dims), tensor, files.stored(tensor))


def _sparse(name: str, sparse: onnx.SparseTensorProto, files: _Files) -> StoredTensor:
    values = sparse.values
    stored = files.stored(values) + files.stored(sparse.indices)
    return StoredTensor(name, _type(values), tuple(sparse.dims), values, stored)


def _type(tensor: TensorProto) -> str:
    known = tensor.data_type in TensorProto.DataType.values()
    name = str(TensorProto.DataType.Name(tensor.data_type)) if known else "UNKNOWN"
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


# -- what they are ----------------------------------------------------------------------------


class _Uses:
    """What the nodes of one scope do with its constants."""

    def __init__(self, scope: _Scope) -> None:
        self._constants = {constant.name: constant for constant in scope.constants}
        self._parameters = _parameter_names(scope.nodes)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in scope.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def sets(self, name: str) -> bool:
        """Whether it is a scale or a zero point."""
        return name in self._parameters

    def reader(self, name: str) -> str:
        """The operator that computes with it."""
        names, found = [name], set()
        while names:
            for node in self._readers.get(names.pop(), ()):
                if node.op_type not in _ON_THE_WAY:
                    return str(node.op_type)
                names += [out for out in node.output if out not in found]
                found.update(node.output)
        return "Identity"

    def numbers(self, constant: StoredTensor) -> tuple[int, int]:
        """How many weights it holds, and how many of them are not zero."""
        for node in self._readers.get(constant.name, ()):
            if constant.name in _packed(node) and constant.type == "uint8":
                packed, given = constant.array(), self._arrays(node)
                with contextlib.suppress(ValueError, LookupError):  # not of the shape it should be
                    return packed_weights(node.op_type, attributes_of(node), packed, given)
        array = self._centered(constant)
        return math.prod(constant.dims), int(np.count_nonzero(array))

    def _arrays(self, node: onnx.NodeProto) -> list[Array | None]:
        found = [self._constants.get(name) for name in node.input]
        return [None if constant is None else constant.array() for constant in found]

    def _centered(self, constant: StoredTensor) -> Array:
        """The stored numbers less their zero point."""
        array = constant.array()
        for node in self._readers.get(constant.name, ()):
            for weight, zero, axis in _ZERO_POINTS.get(node.op_type, ()):
                stored = self._constants.get(node.input[zero]) if len(node.input) > zero else None
                if node.input[weight] == constant.name and stored is not None:
                    return _less(array, stored.array(), node, axis)
        return array


def _packed(node: onnx.NodeProto) -> list[str]:
    return [node.input[place] for place in PACKED.get(node.op_type, ()) if place < len(node.input)]


def _less(array: Array, zero: Array, node: onnx.NodeProto, axis: int) -> Array:
    if not np.count_nonzero(zero):
        return array
    attributes = attributes_of(node)
    if node.op_type == "QGemm":
        axis = 0 if attributes.get("transB") else 1
    axis = attributes.get("axis", axis)
    try:
        zero = _spread(zero.astype(np.int32), array, axis, attributes.get("block_size", 0))
        return np.asarray(array.astype(np.int32) - zero)
    except (ValueError, IndexError):  # onnxruntime refuses such a node, so that it is in no use
        return array


def _spread(zero: Array, array: Array, axis: int, block: int) -> Array:
    """One zero point for all, for each block or channel along ``axis``, or for each direction."""
    if zero.size == 1:
        return zero.reshape(())
    if block:
        return zero.repeat(block, axis).take(range(array.shape[axis]), axis)
    if zero.ndim == array.ndim:
        return zero
    if zero.ndim == 2:  # of a recurrent operator: directions and gates
        return zero.reshape(len(zero), 1, -1)
    return zero.reshape([-1 if place == axis % array.ndim else 1 for place in range(array.ndim)])


def _parameter_names(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    made_by = {name: node for node in nodes for name in node.output}
    names: set[str] = set()
    for node in nodes:
        places = _PARAMETERS.get(node.op_type, ())
        names.update(node.input[place] for place in places if place < len(node.input))
        if node.op_type == "Mul":
            # The scale of weight-only (Cast, Mul) and of dynamic (DynamicQuantizeLinear, Mul).
            makers = [made_by[name] for name in node.input if name in made_by]
            kinds = {maker.op_type for maker in makers}
            if "Cast" in kinds or "DynamicQuantizeLinear" in kinds:
                names.update(node.input)
            names.update(_scales_looked_up(makers, made_by))
    return names


def _scales_looked_up(
    makers: Sequence[onnx.NodeProto], made_by: Mapping[str, onnx.NodeProto]
) -> list[str]:
    # Of an embedding in integers: Gather, Cast, times a Gather of the scales.
    casts = [maker for maker in makers if maker.op_type == "Cast"]
    scales = [maker for maker in makers if maker.op_type == "Gather"]
    rows = [made_by[c.input[0]].op_type for c in casts if c.input[0] in made_by]
    return [scale.input[0] for scale in scales] if rows == ["Gather"] else []
