"""dynamic: activations of 8 bits, over a range that is found for each input at run time."""

from __future__ import annotations

from compress.quantization.formats.base import Format, Tolerance
from compress.quantization.formats.uniform import DynamicActivations

__all__ = ["FORMAT"]

_SLOW = "dynamic int8 convolutions take 5 to 10 times as long"

FORMAT = Format(
    name="dynamic",
    about_activations="8 bits, over a range that is found for each input at run time",
    activations=DynamicActivations(
        bits=8,
        onnx_type="UINT8",
        arithmetic="int8",
        tolerance=Tolerance(least=1e-3, most=0.05, step=1 / 255),
        has_int8_kernels=True,
        kernels=frozenset({"Gemm", "LSTM", "MatMul"}),
        without_kernel={"Conv": _SLOW, "ConvTranspose": _SLOW},
    ),
)
