"""Parity: whether an artifact computes what its (simulated) module computes.

What is left of the outputs once their mean over the samples is taken away depends on the inputs,
and is what an artifact is held to: of the variance of the outputs, the share that it explains (R²)
has a bound for every format. Outputs at random with the right mean and variance have -1, the mean
has 0. Float artifacts are also held to a largest error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress.artifact import Parity
from compress.backends.onnx.feeds import batches, part
from compress.backends.onnx.graph import Array
from compress.backends.onnx.leaf_outputs import first_not_finite
from compress.backends.onnx.ranges import Range
from compress.backends.onnx.session import open_session, run
from compress.errors import LoweringError, ParityError
from compress.modules.inputs import Inputs, batch_size_of, copied, forward
from compress.modules.outputs import one_output
from compress.quantization.fakequant import simulate
from compress.quantization.numerics import LayerFormat

__all__ = [
    "check_parity",
    "check_shape",
    "compare",
    "found",
    "is_right",
    "least_r_squared",
    "r_squared",
    "simulated_outputs",
]

#: Largest error of a float artifact, as a share of the largest output.
FLOAT_TOLERANCE = 1e-3
#: Noise of a float artifact, as a share of the variance of its outputs (1 - R²).
FLOAT_NOISE = 1e-4

_OTHER_ROUNDING = 10.0
_CHAOS = 3.0
# Of the power of the outputs. Two orders of summation in float32 differ by about 1e-12 of it, which
# is all of FLOAT_NOISE where the variance is less than this: it is rounding then.
_STILL = 1e-8

_CHUNK = 64


def check_parity(
    path: Path,
    check: Inputs,
    expected: Array,
    *,
    least: float,
    is_float: bool,
    where: Callable[[], str] = lambda: "an operator",
) -> Parity:
    """Run the file on ``check`` and compare with ``expected``, sample by sample.

    Args:
        path: the artifact.
        check: real inputs, samples on axis 0.
        expected: the module's outputs for them, simulated if anything is quantized.
        least: R² (:func:`least_r_squared`).
        is_float: whether all arithmetic is float32.
        where: says for an error which operator is at fault; asked only then.

    Raises:
        LoweringError: onnxruntime cannot load the file.
        ParityError: outputs that are not finite, or too far from what was expected.
    """
    session = open_session(path)
    rows = [run(session, None, feeds)[0][-new:] for feeds, new in batches([check], session)]
    actual = np.concatenate(rows)
    check_shape(expected, actual)
    if not np.isfinite(actual).all():
        raise ParityError(
            "the lowered model gives outputs that are not finite where its module's are, from "
            f"{where()} on; exclude the layers around it from float16 or int8."
        )
    parity = compare(expected, actual)
    if not is_right(parity, expected, least=least, is_float=is_float):
        kind, what = ("float32", "module") if is_float else ("quantized", "simulated module")
        cure = "write it with other" if is_float else "exclude the layers around it, or use more"
        raise ParityError(
            f"the {kind} artifact does not compute what its {what} computes: "
            f"{found(parity, expected)}, where R² must be {least:.4g}; most of the error comes "
            f"from {where()}: {cure} {'operators' if is_float else 'calibration data'}."
        )
    return parity


def check_shape(expected: Array, actual: Array) -> None:
    """Refuse outputs of another shape.

    Raises:
        ParityError: says both shapes.
    """
    if actual.shape != expected.shape:
        raise ParityError(
            f"the lowered model gives outputs of shape {actual.shape} where its module gives "
            f"{expected.shape}; an output whose size depends on values has no static form."
        )


def simulated_outputs(
    module: nn.Module,
    check: Inputs,
    formats: Mapping[str, LayerFormat],
    ranges: Mapping[str, Range],
    *,
    avoid_saturation: bool,
) -> Array:
    """The module's outputs for ``check`` under ``formats``, samples on axis 0.

    Raises:
        LoweringError: outputs that are not finite; names the first module that makes such.
    """
    own = copy.deepcopy(module)
    with torch.no_grad(), simulate(own, formats, ranges, avoid_saturation=avoid_saturation):
        # A net may work in place, and would change what it is compared on.
        starts = range(0, batch_size_of(check), _CHUNK)
        chunks = (part(check, slice(start, start + _CHUNK)) for start in starts)
        rows = [one_output(forward(own, copied(chunk))) for chunk in chunks]
        outputs = torch.cat(rows).detach().numpy()
        if not np.isfinite(outputs).all():
            raise LoweringError(
                "the module's outputs on the check inputs are not finite, from "
                f"{first_not_finite(own, check)} on, so that an artifact has nothing to agree "
                "with; check the weights, and exclude the layer from float16."
            )
    return outputs


def compare(expected: Array, actual: Array) -> Parity:
    """Agreement of classes (axis 1), largest error, signal-to-noise ratio and R² of two outputs."""
    error = actual.astype(np.float64) - expected
    signal, noise = float((expected.astype(np.float64) ** 2).sum()), float((error**2).sum())
    if noise == 0:
        sqnr = None
    else:
        sqnr = 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
    same = math.nan
    if expected.ndim > 1 and expected.shape[1] > 1:
        same = float((expected.argmax(1) == actual.argmax(1)).mean())
    largest = float(np.abs(error).max(initial=0.0))
    return Parity(same, largest, sqnr, len(expected), r_squared(expected, actual))


def r_squared(expected: Array, actual: Array) -> float:
    """1 less the squared error over the variance of ``expected`` about its mean over the samples.

    Of a single sample the mean is that of all its values. Outputs that do not vary have a variance
    of their square: an artifact of a constant is held to the constant.
    """
    wide = expected.astype(np.float64)
    mean = wide.mean(0) if len(wide) > 1 else wide.mean()
    noise, power = float(((actual - wide) ** 2).sum()), float((wide**2).sum())
    variance = float(((wide - mean) ** 2).sum())
    if variance <= _STILL * power:
        variance = power
    if variance == 0:
        return 1.0 if noise == 0 else -math.inf
    return 1.0 - noise / variance


def least_r_squared(formats: Iterable[LayerFormat], expected: Array, simulated: Array) -> float:
    """The bound for an artifact in ``formats``.

    An artifact rounds what the simulation does not (sums between layers, pooled values, biases): up
    to ten times the noise of the simulation is a format's, within limits. Where the format itself
    moves the module further than those, as few bits do to a net that amplifies rounding, it is
    three times that; and an output may be off by one step of the format's grid. But never so much
    that the mean would do as well.

    Args:
        formats: as they are encoded.
        expected: outputs of the float module.
        simulated: its outputs for the same inputs under ``formats``.
    """
    tolerances = [format.activation_quantizer.tolerance for format in formats]
    rounding = [tolerance for tolerance in tolerances if tolerance is not None]
    if not rounding:
        return 1 - FLOAT_NOISE
    coarsest = max(rounding, key=lambda tolerance: tolerance.step)
    least, most, step = coarsest.least, coarsest.most, coarsest.step
    cost = 1 - r_squared(expected, simulated)
    rounded = 1 - r_squared(expected, expected + step * np.abs(expected).max(initial=0.0))
    return 1 - min(1.0, max(least, min(_OTHER_ROUNDING * cost, most), _CHAOS * cost, rounded))


def is_right(parity: Parity, expected: Array, *, least: float, is_float: bool) -> bool:
    """Whether outputs that compare like this are those of one function."""
    largest = float(np.abs(expected).max(initial=0.0))
    close = not is_float or parity.max_error <= FLOAT_TOLERANCE * largest
    return close and parity.r_squared >= least


def found(parity: Parity, expected: Array) -> str:
    """What a comparison found, in words."""
    scale = float(np.abs(expected).max(initial=0.0))
    same = ""
    if not math.isnan(parity.agreement):
        same = f", the same class for {parity.agreement:.0%}"
    return (
        f"largest error {parity.max_error:.3g} of outputs up to {scale:.3g}, "
        f"R² {parity.r_squared:.5g}{same} over {parity.samples} samples"
    )
