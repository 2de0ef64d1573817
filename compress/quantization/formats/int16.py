"""int16: activations of 16 bits over a range from calibration data, beside integer weights.

For layers that 8 bits are too coarse for. Runtimes of signal processors and of some accelerators
have kernels for it; onnxruntime's CPU has none, and computes in float32 between roundings to 16
bits, so that a file is as exact there as on such a device, and slower than float32.
"""

from __future__ import annotations

from compress.quantization.formats.base import Format, Tolerance
from compress.quantization.formats.uniform import StaticActivations

__all__ = ["FORMAT"]

FORMAT = Format(
    name="int16",
    about_activations="16 bits, over a range from calibration data: kernels of signal processors",
    activations=StaticActivations(
        bits=16,
        onnx_type="UINT16",
        arithmetic="int16",
        tolerance=Tolerance(least=1e-4, most=1e-3, step=1 / 65535),
        kernels=frozenset({"Conv", "Gemm"}),
        without_kernel={"ConvTranspose": "onnxruntime has no int16 transposed convolution"},
        note=(
            "rounded to 16 bits and computed in float32, since onnxruntime has no int16 kernels on "
            "a CPU"
        ),
    ),
)
