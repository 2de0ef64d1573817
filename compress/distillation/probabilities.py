"""Probabilities in place of logits: how to recognize them, and how to convert them."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.errors import DataError

__all__ = ["are_probabilities", "logits_of"]

# Rounding of a softmax in half precision; and of one whose result went through 8 bits.
_ROUNDING, _COARSE_ROUNDING = 1e-3, 0.1
_RULE = "probabilities, (n, classes, ...), are at least 0 and sum to 1 over two classes or more"


def are_probabilities(outputs: Tensor, *, coarse: bool = False) -> bool:
    """Whether outputs ``(n, classes, ...)`` are at least 0 and sum to 1 over the classes.

    One column is no distribution, whatever it holds.

    Args:
        outputs: of a net.
        coarse: whether sums may be as far from 1 as int8 can bring them.
    """
    if outputs.dim() < 2 or outputs.shape[1] < 2 or not outputs.is_floating_point():
        return False
    if not outputs.numel() or float(outputs.min()) < 0:
        return False
    return _distance(outputs) <= (_COARSE_ROUNDING if coarse else _ROUNDING)


def logits_of(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities ``(n, classes, ...)``: their logits, up to a constant.

    So its softmax is right at every temperature. What was rounded to 0 counts as the smallest
    normal float32.

    Args:
        probabilities: outputs of a softmax over axis 1.

    Raises:
        DataError: they are no probabilities. Values that are not finite are left to later checks.
    """
    given = probabilities.float()
    if given.dim() < 2 or given.shape[1] < 2:
        raise DataError(f"{_RULE}; the shape is {tuple(given.shape)}")
    if float(given.min()) < 0:
        raise DataError(f"{_RULE}; the smallest is {float(given.min()):.3g}")
    if (distance := _distance(given)) > _COARSE_ROUNDING:
        raise DataError(f"{_RULE}; a sum is {distance:.3g} away from 1")
    return given.clamp(min=torch.finfo(torch.float32).tiny).log()


def _distance(outputs: Tensor) -> float:
    return float((outputs.float().sum(1) - 1).abs().max())
