"""Weights of a few bits that onnxruntime's operators hold packed in bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["PACKED", "packed_weights"]

#: Which inputs of an operator hold packed weights, where they are stored as ``uint8``.
PACKED = {"MatMulNBits": (1,), "MatMulBnb4": (1,), "GatherBlockQuantized": (0,), "QMoE": (2, 5, 8)}

# The codes of 4 bits that stand for zero, by ``quant_type``: of FP4 (with a sign), of NF4.
_ZERO_CODES = {0: (0, 8), 1: (7,)}

Array = np.ndarray[Any, np.dtype[Any]]


def packed_weights(
    operator: str, attributes: Mapping[str, Any], packed: Array, inputs: Sequence[Array | None]
) -> tuple[int, int]:
    """How many weights ``packed`` holds, and how many of them are not zero.

    ``inputs`` are those of the operator that are constants, by place.
    """
    if operator == "MatMulBnb4":
        codes = _codes(packed.ravel(), 4)[: attributes["K"] * attributes["N"]]
        zeros = _ZERO_CODES.get(attributes.get("quant_type", 1), ())
        return codes.size, int(codes.size - np.isin(codes, zeros).sum())
    bits = int(attributes.get("bits") or attributes.get("expert_weight_bits") or 4)
    codes, zero = _codes(packed, bits), np.asarray(1 << (bits - 1))
    if operator == "MatMulNBits":
        codes = codes.reshape(len(packed), -1)[:, : attributes["K"]]
        given = inputs[3] if len(inputs) > 3 else None
        zero = zero if given is None else _zero_points(given, codes, attributes, bits)
    return codes.size, int(np.count_nonzero(codes != zero))


def _codes(packed: Array, bits: int) -> Array:
    """The numbers in bytes, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., None] >> shifts) & ((1 << bits) - 1)
    return np.asarray(parts.reshape(*packed.shape[:-1], -1))


def _zero_points(given: Array, codes: Array, attributes: Mapping[str, Any], bits: int) -> Array:
    """One for each block of a row, packed as the weights are, or as floats."""
    rows, depth = codes.shape
    block = int(attributes["block_size"])
    each = given.reshape(rows, -1)
    if given.dtype == np.uint8:
        each = _codes(each, bits)
    return each[:, : -(-depth // block)].repeat(block, axis=1)[:, :depth]
