"""Parity: whether an artifact computes what its (simulated) module computes.

What is left of the outputs once their mean over the samples is taken away depends on the inputs,
and is what an artifact is held to: of the variance of the outputs, the share that it explains (R²)
has a bound for every format. Outputs at random with the right mean and variance have -1, the mean
has 0. Float artifacts are also held to a largest error. Of outputs that are no floats (classes,
masks), the share that differs takes the place of the error. Each of several outputs is held to a
bound of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress.artifact import Parity
from compress.backends.onnx.discrete import explained, is_discrete, least_explained, same
from compress.backends.onnx.feeds import batches, part
from compress.backends.onnx.graph import Array
from compress.backends.onnx.leaf_outputs import first_not_finite
from compress.backends.onnx.ranges import Range
from compress.backends.onnx.session import open_session, run
from compress.errors import LoweringError, ParityError
from compress.modules.inputs import Inputs, batch_size_of, copied, forward
from compress.modules.outputs import by_name, only
from compress.quantization.fakequant import simulate
from compress.quantization.formats.base import Tolerance
from compress.quantization.numerics import LayerFormat

__all__ = [
    "Bound",
    "Outputs",
    "bound_of",
    "check_parity",
    "check_same_outputs",
    "check_shape",
    "compare",
    "found",
    "is_right",
    "least_r_squared",
    "of_output",
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

#: What a model gives for some samples, by the names of its outputs and in its order.
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Bound:
    """What one output is held to.

    Args:
        least: its R².
        is_float: whether all arithmetic behind it is float32.
        step: the largest error that is right whatever R² is: one step of the grid, where that is
            more than what outputs vary by; 0 for none.
    """

    least: float
    is_float: bool
    step: float = 0.0


def check_parity(
    path: Path,
    check: Inputs,
    expected: Outputs,
    bounds: Mapping[str, Bound],
    *,
    where: Callable[[], str] = lambda: "an operator",
) -> Parity:
    """Run the file on ``check`` and compare with ``expected``, sample by sample.

    Args:
        path: the artifact.
        check: real inputs, samples on axis 0.
        expected: the module's outputs for them, simulated if anything is quantized.
        bounds: of each output (:func:`least_r_squared`).
        where: says for an error which operator is at fault; asked only then.

    Returns:
        That of the only output, or of the one that is nearest to its bound, with all by name.

    Raises:
        LoweringError: onnxruntime cannot load the file.
        ParityError: outputs that are not finite, or too far from what was expected.
    """
    session = open_session(path)
    ran = [(run(session, None, feeds), new) for feeds, new in batches([check], session)]
    check_same_outputs(expected, len(ran[0][0]))
    compared: dict[str, Parity] = {}
    for place, name in enumerate(expected):
        actual = np.concatenate([rows[place][-new:] for rows, new in ran])
        which = of_output(name, expected)
        compared[name] = _parity(expected[name], actual, bounds[name], which, where)
    if len(compared) == 1:
        return next(iter(compared.values()))
    nearest = min(compared, key=lambda name: _room(compared[name], bounds[name]))
    return replace(compared[nearest], outputs=compared)


def _parity(
    expected: Array, actual: Array, bound: Bound, which: str, where: Callable[[], str]
) -> Parity:
    check_shape(expected, actual, which)
    if not np.isfinite(actual).all():
        raise ParityError(
            f"the lowered model gives outputs{which} that are not finite where its module's are, "
            f"from {where()} on; exclude the layers around it from float16 or int8."
        )
    parity = compare(expected, actual)
    least, is_float, step = bound.least, bound.is_float, bound.step
    if not is_right(parity, expected, least=least, is_float=is_float, step=step):
        kind, what = ("float32", "module") if bound.is_float else ("quantized", "simulated module")
        cure = "write it with other operators"
        if not bound.is_float:
            cure = "exclude the layers around it, or use more calibration data"
        raise ParityError(
            f"the {kind} artifact does not compute what its {what} computes{which}: "
            f"{found(parity, expected)}, where R² must be {bound.least:.4g} or more; most of the "
            f"error comes from {where()}: {cure}."
        )
    return parity


def _room(parity: Parity, bound: Bound) -> float:
    """How far an output is from its bound, in shares of what it may be off by."""
    return (parity.r_squared - bound.least) / max(1 - bound.least, FLOAT_NOISE)


def of_output(name: str, outputs: Collection[str]) -> str:
    """Which of several outputs a message is about; nothing of the only one."""
    return f" of {name!r}" if len(outputs) > 1 else ""


def check_same_outputs(expected: Outputs, count: int) -> None:
    """Refuse another number of outputs.

    Raises:
        ParityError: says both.
    """
    if count != len(expected):
        raise ParityError(
            f"the lowered model gives {count} outputs where its module gives {len(expected)} "
            f"({', '.join(expected)}); return the same ones whatever the inputs, and while torch "
            "traces."
        )


def check_shape(expected: Array, actual: Array, which: str = "") -> None:
    """Refuse outputs of another shape.

    Raises:
        ParityError: says both shapes.
    """
    if actual.shape != expected.shape:
        raise ParityError(
            f"the lowered model gives outputs{which} of shape {actual.shape} where its module "
            f"gives {expected.shape}; an output whose size depends on values has no static form."
        )


def simulated_outputs(
    module: nn.Module,
    check: Inputs,
    formats: Mapping[str, LayerFormat],
    ranges: Mapping[str, Range],
    *,
    avoid_saturation: bool,
    ships: Collection[str] = (),
) -> dict[str, Array]:
    """The module's outputs for ``check`` under ``formats``, by name, samples on axis 0.

    Args:
        module: left as it was.
        check: a batch of any size.
        formats: of its layers.
        ranges: of the inputs of its static layers.
        avoid_saturation: as in ``Lowering``.
        ships: names of the outputs that are wanted; empty for all.

    Raises:
        LoweringError: outputs that are not finite; names the first module that makes such.
    """
    own = copy.deepcopy(module)
    with torch.no_grad(), simulate(own, formats, ranges, avoid_saturation=avoid_saturation):
        # A net may work in place, and would change what it is compared on.
        starts = range(0, batch_size_of(check), _CHUNK)
        chunks = (part(check, slice(start, start + _CHUNK)) for start in starts)
        rows = [by_name(only(forward(own, copied(chunk)), ships)) for chunk in chunks]
        outputs = {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
        if wrong := [name for name, array in outputs.items() if not np.isfinite(array).all()]:
            raise LoweringError(
                f"the module's outputs{of_output(wrong[0], outputs)} on the check inputs are not "
                f"finite, from {first_not_finite(own, check)} on, so that an artifact has nothing "
                "to agree with; check the weights, and exclude the layer from float16."
            )
    return outputs


def compare(expected: Array, actual: Array) -> Parity:
    """How far two outputs are apart.

    Of floats: agreement of classes (axis 1), largest error, signal-to-noise ratio and R². Of others
    the agreement is the share of equal values, and R² what :func:`explained` gives.
    """
    error = actual.astype(np.float64) - expected
    signal, noise = float((expected.astype(np.float64) ** 2).sum()), float((error**2).sum())
    if noise == 0:
        sqnr = None
    else:
        sqnr = 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
    largest = float(np.abs(error).max(initial=0.0))
    if is_discrete(expected):
        share = explained(expected, actual)
        return Parity(same(expected, actual), largest, sqnr, len(expected), share)
    classes = math.nan
    if expected.ndim > 1 and expected.shape[1] > 1:
        classes = float((expected.argmax(1) == actual.argmax(1)).mean())
    return Parity(classes, largest, sqnr, len(expected), r_squared(expected, actual))


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


def bound_of(
    formats: Collection[LayerFormat], expected: Array, simulated: Array, *, is_float: bool
) -> Bound:
    """What an output is held to that layers in ``formats`` are behind; see :func:`least_r_squared`.

    Args:
        formats: as they are encoded.
        expected: outputs of the float module.
        simulated: its outputs for the same inputs under ``formats``.
        is_float: whether all arithmetic behind it is float32.
    """
    least = least_r_squared(formats, expected, simulated)
    return Bound(least, is_float, _unresolved_step(formats, expected))


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
    coarsest = _coarsest(formats)
    if coarsest is None:
        return 1 - FLOAT_NOISE
    least, most = coarsest.least, coarsest.most
    if is_discrete(expected):
        factors = _OTHER_ROUNDING, _CHAOS
        return least_explained(expected, simulated, least=least, most=most, factors=factors)
    cost = 1 - r_squared(expected, simulated)
    rounded = 1 - r_squared(expected, expected + _step(coarsest, expected))
    return 1 - min(1.0, max(least, min(_OTHER_ROUNDING * cost, most), _CHAOS * cost, rounded))


def _unresolved_step(formats: Iterable[LayerFormat], expected: Array) -> float:
    """One step of the coarsest grid, where it is more than what outputs vary by; else 0.

    Such outputs, as the scores of a detector that has learned nothing, are told apart by no file in
    these formats, and their R² says nothing.
    """
    coarsest = _coarsest(formats)
    if coarsest is None or is_discrete(expected):
        return 0.0
    step = _step(coarsest, expected)
    return step if r_squared(expected, expected + step) < 0 else 0.0


def _coarsest(formats: Iterable[LayerFormat]) -> Tolerance | None:
    tolerances = [format.activation_quantizer.tolerance for format in formats]
    rounding = [tolerance for tolerance in tolerances if tolerance is not None]
    return max(rounding, key=lambda tolerance: tolerance.step, default=None)


def _step(tolerance: Tolerance, expected: Array) -> float:
    return float(tolerance.step * np.abs(expected).max(initial=0.0))


def is_right(
    parity: Parity, expected: Array, *, least: float, is_float: bool, step: float = 0.0
) -> bool:
    """Whether outputs that compare like this are those of one function; see :class:`Bound`."""
    if 0 < step >= parity.max_error:
        return True
    largest = float(np.abs(expected).max(initial=0.0))
    close = not is_float or is_discrete(expected) or parity.max_error <= FLOAT_TOLERANCE * largest
    return close and parity.r_squared >= least


def found(parity: Parity, expected: Array) -> str:
    """What a comparison found, in words."""
    scale = float(np.abs(expected).max(initial=0.0))
    agreed = ""
    if is_discrete(expected):
        agreed = f", {parity.agreement:.2%} of the values equal"
    elif not math.isnan(parity.agreement):
        agreed = f", the same class for {parity.agreement:.0%}"
    return (
        f"largest error {parity.max_error:.3g} of outputs up to {scale:.3g}, "
        f"R² {parity.r_squared:.5g}{agreed} over {parity.samples} samples"
    )
