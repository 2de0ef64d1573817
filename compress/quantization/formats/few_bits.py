"""int4 and int2: weights of few bits, stored in a byte each.

onnxruntime has no kernels that compute layers with smaller ones, other than in products of
matrices.
"""

from __future__ import annotations

from compress.quantization.formats.base import Format
from compress.quantization.formats.uniform import IntegerWeights

__all__ = ["INT2", "INT4"]

INT4 = Format(
    name="int4",
    weights=IntegerWeights(bits=4, onnx_type="INT8"),
    about_weights="4 bits, stored in a byte each",
)
INT2 = Format(
    name="int2",
    weights=IntegerWeights(bits=2, onnx_type="INT8"),
    about_weights="2 bits, stored in a byte each",
)
