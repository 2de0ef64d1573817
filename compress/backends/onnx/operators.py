"""Operators: what kind of work each of onnxruntime's operators does, and how much. Plain data.

Shared by what takes a census of a file and by what profiles one that runs, so that both mean the
same by "int8" and by a multiply-accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "CONVERSIONS",
    "FLOAT_PRODUCTS",
    "INT8_PRODUCTS",
    "MOVES",
    "PRODUCTS",
    "RECURRENT",
    "UNCOUNTED",
    "UNKNOWN",
    "Macs",
    "OperatorCall",
    "is_int8",
    "plain_name",
    "product_macs",
]

Shape = Sequence[int]

#: Stands for a shape that is not known, where ``None`` is a tensor that is not there.
UNKNOWN: Shape = (-1,)

#: Products of layers in float, as the file has them or as onnxruntime fuses them.
FLOAT_PRODUCTS = frozenset({
    "Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose",
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul",
})  # fmt: skip

#: Operators with int8 kernels for their products, whatever the types of what they make.
INT8_PRODUCTS = frozenset({
    "QLinearConv", "ConvInteger",
    "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM", "QAttention",
})  # fmt: skip

#: Operators that read a sequence, the first with their lengths in the fifth place.
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})

#: Operators that compute products which no rule here counts.
UNCOUNTED = frozenset({
    "AttnLSTM", "BeamSearch", "DecoderAttention", "GatedDeltaNet", "GreedySearch",
    "LinearAttention", "Sampling", "SVMClassifier", "SVMRegressor", "VarlenCausalConvWithState",
    "WhisperBeamSearch", "WordConvEmbedding",
})  # fmt: skip

#: Operators that only change the type of their values.
CONVERSIONS = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})

#: Operators that compute nothing: they move, select or convert.
MOVES = CONVERSIONS | {
    "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip

_PLAIN_NAMES = {
    "FusedConv": "Conv", "NhwcFusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul",
    "TransposeMatMul": "MatMul",
}  # fmt: skip


@dataclass(frozen=True)
class OperatorCall:
    """One call of an operator: the shapes of what it reads and makes, by place, and its attributes.

    ``None`` is an input or output that is left out, a size below zero one that is not known.
    """

    operator: str
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates, and those of them that run on int8 kernels."""

    total: int = 0
    int8: int = 0


def is_int8(operator: str, output_types: Collection[str]) -> bool:
    """Whether ``operator`` computes in int8, given numpy's names of the types of its outputs."""
    if operator in INT8_PRODUCTS or operator.startswith("QLinear"):
        return True
    small = not {"uint8", "int8"}.isdisjoint(output_types)
    return small and operator not in MOVES and operator != "DynamicQuantizeLinear"


def plain_name(operator: str) -> str:
    """The operator of ONNX that one of onnxruntime's fused float operators stands for."""
    return _PLAIN_NAMES.get(operator, operator)


def product_macs(call: OperatorCall) -> Macs | None:
    """Multiply-accumulates of one call; ``None`` where they follow from sizes that are not known.

    What is multiplied and summed is counted: weights by values, and values by values. Additions of
    a bias, scalings, activations, norms and sums alone are not. What is padded or masked counts as
    much as the rest, since it is computed as well.
    """
    rule = PRODUCTS.get(call.operator)
    if rule is None:
        return Macs()
    try:
        total = rule(call)
        return Macs(total, _int8_macs(call, total))
    except (LookupError, ValueError):  # fewer axes than the operator has: not known either
        return None


def _int8_macs(call: OperatorCall, total: int) -> int:
    if call.operator == "QAttention":
        return _projection(call)  # scores and what they weigh are computed in float
    if call.operator == "MatMulNBits":
        return total if _rounds_its_input(call.attributes) else 0
    return total if call.operator in INT8_PRODUCTS else 0


def _rounds_its_input(attributes: Mapping[str, Any]) -> bool:
    # Level 4 lets the kernel round what it multiplies weights of few bits with to int8; with 2 bits
    # in blocks of 16 there is no such kernel.
    fits = attributes.get("bits", 4) > 2 or attributes.get("block_size", 0) > 16
    return bool(attributes.get("accuracy_level") == 4 and fits)


# -- shapes -----------------------------------------------------------------------------------


def _read(call: OperatorCall, place: int) -> Shape:
    return _known(call.inputs[place])


def _made(call: OperatorCall, place: int = 0) -> Shape:
    return _known(call.outputs[place])


def _optional(shapes: Sequence[Shape | None], place: int) -> Shape | None:
    shape = shapes[place] if place < len(shapes) else None
    return None if shape is None else _known(shape)


def _known(shape: Shape | None) -> Shape:
    if shape is None or any(size < 0 for size in shape):
        raise LookupError
    return shape


# -- matrices and convolutions ----------------------------------------------------------------


def _matrix(call: OperatorCall) -> int:
    source, attributes = _read(call, 0), call.attributes
    axis = -1
    if attributes.get("transA") and len(source) > 1:
        axis = 0 if attributes.get("transBatchA") else -2
    return math.prod(_made(call)) * source[axis]


def _rows(call: OperatorCall) -> int:
    """A linear model of ``ai.onnx.ml``, whose weights are an attribute."""
    return math.prod(_read(call, 0)[:-1]) * len(call.attributes["coefficients"])


def _convolution(call: OperatorCall) -> int:
    # Channels may be first or last: the weight has those of one group, and its output's first.
    weight = _read(call, 3 if call.operator == "QLinearConv" else 1)
    return math.prod(_made(call)) * math.prod(weight[1:])


def _transposed_convolution(call: OperatorCall) -> int:
    return math.prod(_read(call, 0)) * math.prod(_read(call, 1)[1:])


# -- sequences --------------------------------------------------------------------------------


def _recurrent(call: OperatorCall) -> int:
    # The weights of inputs and states hold all directions and gates.
    steps = math.prod(_read(call, 0)[:2])
    return steps * (math.prod(_read(call, 1)) + math.prod(_read(call, 2)))


def _attention(call: OperatorCall) -> int:
    """``Attention`` of ONNX, or of onnxruntime, whose second input is a matrix."""
    key = _read(call, 1)
    if len(key) == 2:
        return _projected_attention(call)
    past = _optional(call.inputs, 4)
    length = key[2 if len(key) == 4 else 1] + (past[2] if past else 0)
    return (math.prod(_read(call, 0)) + math.prod(_made(call))) * length


def _projection(call: OperatorCall) -> int:
    return math.prod(_read(call, 0)[:-1]) * math.prod(_read(call, 1))


def _projected_attention(call: OperatorCall) -> int:
    batch, steps, _ = _read(call, 0)
    hidden = call.attributes.get("qkv_hidden_sizes") or [_read(call, 1)[1] // 3]
    past = _optional(call.inputs, 8 if call.operator == "QAttention" else 4)
    length = steps + (past[3] if past else 0)
    scores = batch * steps * int(hidden[0]) * length
    return _projection(call) + scores + math.prod(_made(call)) * length


def _multi_head_attention(call: OperatorCall) -> int:
    query, key, result = _read(call, 0), _optional(call.inputs, 1), _made(call)
    past = _optional(call.inputs, 6 if call.operator == "MultiHeadAttention" else 5)
    size, length = math.prod(query), query[1]
    if key is not None:
        length = key[2 if len(key) == 4 else 1]
    elif len(query) == 5:
        size //= 3  # queries, keys and values in one tensor
    else:
        size = math.prod(query[:-1]) * (query[-1] - result[-1]) // 2
    length += past[2] if past else 0
    return (size + math.prod(result)) * length


def _grouped_attention(call: OperatorCall) -> int:
    # Keys and values that are kept, and that have fewer heads than the queries.
    return 2 * math.prod(_made(call)) * _made(call, 1)[2]


def _experts(call: OperatorCall) -> int:
    """The experts that each row is sent to; which they are does not matter."""
    packed = call.operator == "QMoE"
    pack = 8 // int(call.attributes.get("expert_weight_bits", 4)) if packed else 1
    places = (2, 5, 8) if packed else (2, 4, 6)
    weights = [_optional(call.inputs, place) for place in places]
    each = sum(math.prod(weight[1:]) * pack for weight in weights if weight)
    return math.prod(_read(call, 0)[:-1]) * int(call.attributes.get("k", 1)) * each


# -- Einsum -----------------------------------------------------------------------------------


def _einsum(call: OperatorCall) -> int:
    """Of two operands the product of the sizes of all indices, each counted once.

    Of more, that of each step when the next operand is multiplied with what the ones before made,
    from the left, as onnxruntime does: indices that nothing reads later are summed at once. Of one
    operand none, since nothing is multiplied.
    """
    text = call.attributes["equation"]
    equation = (text.decode() if isinstance(text, bytes) else str(text)).replace(" ", "")
    terms, _, result = equation.partition("->")
    shapes = [_read(call, place) for place in range(len(terms.split(",")))]
    named = [_indices(*pair) for pair in zip(terms.split(","), shapes, strict=True)]
    sizes: dict[str, int] = {}
    for indices in named:
        for index, size in indices.items():
            sizes[index] = max(sizes.get(index, 1), size)
    kept = set(result) if "->" in equation else {i for i in sizes if terms.count(i) == 1}
    kept |= {index for index in sizes if index.isdigit()}
    total, held = 0, {*named[0]}
    for place, indices in enumerate(named[1:], start=1):
        met = held | {*indices}
        total += math.prod(sizes[index] for index in met)
        held = met & kept.union(*named[place + 1 :])
    return total


def _indices(term: str, shape: Shape) -> dict[str, int]:
    """The size of each index; axes behind an ellipsis are digits, counted from the last."""
    before, dots, after = term.partition("...")
    hidden = len(shape) - len(before) - len(after)
    if hidden < 0 or (hidden and not dots):
        raise ValueError
    between = [chr(ord("0") + place) for place in reversed(range(hidden))]
    return dict(zip([*before, *between, *after], shape, strict=True))


_MATRICES = (
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul", "FusedMatMulActivation",
    "GemmFastGelu", "GemmFloat8", "SparseToDenseMatMul", "CDist",
    "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16",
    "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
)  # fmt: skip
_CONVOLUTIONS = (
    "Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "DeformConv", "CausalConvWithState",
    "QLinearConv", "ConvInteger",
)  # fmt: skip

#: What each operator with products computes, as a function of its call.
PRODUCTS: Mapping[str, Callable[[OperatorCall], int]] = {
    **dict.fromkeys(_MATRICES, _matrix),
    **dict.fromkeys(("LinearClassifier", "LinearRegressor"), _rows),
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(("ConvTranspose", "ConvTransposeWithDynamicPads"), _transposed_convolution),
    **dict.fromkeys(RECURRENT, _recurrent),
    "Einsum": _einsum,
    "Attention": _attention,
    "QAttention": _projected_attention,
    **dict.fromkeys(
        ("MultiHeadAttention", "DecoderMaskedMultiHeadAttention"), _multi_head_attention
    ),
    **dict.fromkeys(("GroupQueryAttention", "SparseAttention"), _grouped_attention),
    **dict.fromkeys(("MoE", "QMoE"), _experts),
}
