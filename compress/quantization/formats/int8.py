"""int8: weights of 8 bits, and activations of 8 bits over a range from calibration data."""

from __future__ import annotations

from compress.quantization.formats.base import Format, Tolerance
from compress.quantization.formats.uniform import IntegerWeights, StaticActivations

__all__ = ["FORMAT"]

FORMAT = Format(
    name="int8",
    about_weights="8 bits, a quarter of the file",
    about_activations="8 bits, over a range from calibration data: integer kernels",
    weights=IntegerWeights(bits=8, onnx_type="INT8", can_saturate=True),
    activations=StaticActivations(
        bits=8,
        onnx_type="UINT8",
        arithmetic="int8",
        tolerance=Tolerance(least=1e-3, most=0.05, step=1 / 255),
        has_int8_kernels=True,
        # What onnxruntime computes in int8 on a CPU. Products of two activations are left out: in
        # int8 they gain under 5 % on attention (softmax has to be quantized for them) and cost
        # accuracy.
        kernels=frozenset({"Conv", "Gemm"}),
        without_kernel={"ConvTranspose": "onnxruntime has no int8 transposed convolution"},
        when_recurrent="dynamic",
    ),
)
