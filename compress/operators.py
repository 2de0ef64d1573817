"""Operators: what kind of work each of onnxruntime's operators does. Plain data.

Shared by what takes a census of a file and by what profiles one that runs, so that both mean the
same by "int8".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

__all__ = [
    "CONVERSIONS",
    "FLOAT_PRODUCTS",
    "INT8_PRODUCTS",
    "MOVES",
    "is_int8",
    "product_macs",
]

# Where the weight is among the inputs of a product; what is left of it is the other operand.
FLOAT_PRODUCTS = {
    "Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvTranspose": 1,
    "Gemm": 1, "FusedGemm": 1, "MatMul": 1, "FusedMatMul": 1, "TransposeMatMul": 1,
}  # fmt: skip
INT8_PRODUCTS = {
    "QLinearConv": 3, "ConvInteger": 1,
    "QGemm": 3, "QLinearMatMul": 3, "MatMulInteger": 1, "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
}  # fmt: skip
_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}

#: Operators that only change the type of their values.
CONVERSIONS = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})

#: Operators that compute nothing: they move, select or convert.
MOVES = CONVERSIONS | {
    "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


def is_int8(operator: str, output_types: Collection[str]) -> bool:
    """Whether ``operator`` computes in int8, given numpy's names of the types of its outputs."""
    if operator in INT8_PRODUCTS or operator.startswith("QLinear"):
        return True
    small = not {"uint8", "int8"}.isdisjoint(output_types)
    return small and operator not in MOVES and operator != "DynamicQuantizeLinear"


def product_macs(
    operator: str,
    source: Sequence[int],
    weight: Sequence[int],
    result: Sequence[int],
    *,
    transposed: bool = False,
) -> int:
    """Multiply-accumulates of one product from the shapes of its two operands and its result.

    ``transposed``: whether the first operand of a matrix product is read transposed. Layouts do
    not matter: channels may be first or last.
    """
    if operator == "ConvTranspose":
        return math.prod(source) * math.prod(weight[1:])
    if operator in _CONVOLUTIONS:
        return math.prod(result) * math.prod(weight[1:])
    return math.prod(result) * source[-2 if transposed else -1]
