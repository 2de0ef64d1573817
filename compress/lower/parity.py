"""Parity: whether an artifact computes what its (simulated) module computes.

Compares the file, run as its target runs it, with the module under the declared formats. What an
artifact rounds and the simulation does not (sums between layers, biases, pooled values) is why
quantised artifacts are held to a loose bound, and float ones to a tight one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress.algorithms.fakequant import simulate
from compress.artifact import Parity
from compress.errors import ParityError
from compress.inputs import Inputs, batch_size_of, forward
from compress.lower.feeds import batches
from compress.lower.graph import Array
from compress.lower.ranges import Range
from compress.lower.session import open_session, run
from compress.numerics import LayerFormat

__all__ = ["check_parity", "compare", "simulated_outputs"]

#: Largest error of a float artifact, as a share of the largest output.
FLOAT_TOLERANCE = 1e-3
#: A quantised artifact is wrong when its noise is above this and its classes differ.
LEAST_SQNR_DB = 10.0
LEAST_AGREEMENT = 0.8

_CHUNK = 64


def check_parity(path: Path, check: Inputs, expected: Array, *, is_float: bool) -> Parity:
    """Run the file on ``check`` and compare with ``expected``, sample by sample.

    Args:
        path: the artifact.
        check: real inputs, samples on axis 0.
        expected: the module's outputs for them, simulated if anything is quantised.
        is_float: whether every layer is float32.

    Raises:
        LoweringError: onnxruntime cannot load the file.
        ParityError: outputs that are not finite, or too far from what was expected.
    """
    session = open_session(path)
    rows = [run(session, None, feeds)[0][-new:] for feeds, new in batches([check], session)]
    actual = np.concatenate(rows)
    if actual.shape != expected.shape:
        raise ParityError(
            f"the lowered model gives outputs of shape {actual.shape} where its module gives "
            f"{expected.shape}; an output whose size depends on values has no static form."
        )
    if not np.isfinite(actual).all():
        raise ParityError(
            "the lowered model gives outputs that are not finite where its module's are; exclude "
            "layers with very large activations from float16 or int8."
        )
    parity = compare(expected, actual)
    _judge(parity, float(np.abs(expected).max()), is_float=is_float)
    return parity


def simulated_outputs(
    module: nn.Module,
    check: Inputs,
    formats: Mapping[str, LayerFormat],
    ranges: Mapping[str, Range],
    *,
    avoid_saturation: bool,
) -> Array:
    """The module's outputs for ``check`` under ``formats``, samples on axis 0."""
    own = copy.deepcopy(module)
    with torch.no_grad(), simulate(own, formats, ranges, avoid_saturation=avoid_saturation):
        rows = [forward(own, chunk) for chunk in _chunks(check)]
    return torch.cat(rows).numpy()


def compare(expected: Array, actual: Array) -> Parity:
    """Agreement of classes (axis 1), largest error and signal-to-noise ratio of two outputs."""
    error = actual.astype(np.float64) - expected
    signal, noise = float((expected.astype(np.float64) ** 2).sum()), float((error**2).sum())
    if noise == 0:
        sqnr = None
    else:
        sqnr = 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
    same = np.ones(1)
    if _has_classes(expected):
        same = expected.argmax(1) == actual.argmax(1)
    return Parity(float(same.mean()), float(np.abs(error).max()), sqnr, len(expected))


def _judge(parity: Parity, scale: float, *, is_float: bool) -> None:
    noisy = parity.sqnr_db is not None and parity.sqnr_db < LEAST_SQNR_DB
    found = (
        f"largest error {parity.max_error:.3g} of outputs up to {scale:.3g}, the same class for "
        f"{parity.agreement:.0%} of {parity.samples} samples"
    )
    if is_float and parity.max_error > FLOAT_TOLERANCE * scale:
        raise ParityError(
            f"the float32 artifact does not compute what its module computes: {found}; the "
            "export took a branch that depends on the example, or an operator differs."
        )
    if not is_float and noisy and parity.agreement < LEAST_AGREEMENT:
        raise ParityError(
            f"the quantised artifact does not compute what its simulated module computes: {found}"
            "; lower with avoid_saturation, exclude sensitive layers, or use more calibration data."
        )


def _has_classes(outputs: Array) -> bool:
    return outputs.ndim > 1 and outputs.shape[1] > 1


def _chunks(inputs: Inputs) -> Iterator[Inputs]:
    for start in range(0, batch_size_of(inputs), _CHUNK):
        rows = slice(start, start + _CHUNK)
        if isinstance(inputs, dict):
            yield {name: tensor[rows] for name, tensor in inputs.items()}
        else:
            yield inputs[rows]
