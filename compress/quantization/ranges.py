"""Ranges of activations: the one owner of how a range is chosen from what was seen.

Both sides use it: the simulation in torch, and the lowering to ONNX. It is numpy only and
keeps one fixed histogram per tensor, so that its memory does not grow with the number of samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.quantization.numerics import Calibration

__all__ = ["RangeObserver"]

_BINS = 4096
_MSE_CANDIDATES = 64
_MSE_TIGHTEST = 0.2  # the strongest clip that is tried, as a share of the min-max range

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]


class RangeObserver:
    """Streams arrays and then answers which range to quantize them to.

    The histogram spans ``[-2**k, 2**k)`` with dyadic bin edges. When a value falls outside, ``k``
    grows and pairs of bins merge, which is exact, so the answer does not depend on the order or the
    size of the batches.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._exponent: int | None = None
        self._zeros = 0
        self._low = np.inf
        self._high = -np.inf

    def update(self, values: FloatArray) -> None:
        """Take in an array of any shape.

        Raises:
            ValueError: a value that is not finite.
        """
        flat = np.asarray(values, dtype=np.float32).ravel()
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("an activation is not finite")
        self._low, self._high = min(self._low, low), max(self._high, high)
        nonzero = flat[flat != 0]
        self._zeros += flat.size - nonzero.size
        if nonzero.size:
            self._grow_to(max(abs(low), abs(high)))
            self._add(nonzero)

    def range(self, calibration: Calibration, *, levels: int) -> tuple[float, float]:
        """The range ``(low, high)``, which always contains zero.

        Args:
            calibration: how it is chosen.
            levels: how many steps the grid over it has; what clips for the least error asks.

        Raises:
            ValueError: nothing was observed.
        """
        if self._low > self._high:
            raise ValueError("no calibration data was observed")
        low, high = min(self._low, 0.0), max(self._high, 0.0)
        if calibration.method == "minmax" or self._exponent is None:
            return low, high
        if calibration.method == "percentile":
            return self._percentile(calibration.percentile, low, high)
        return self._least_squares(low, high, levels)

    def _grow_to(self, magnitude: float) -> None:
        needed = int(np.floor(np.log2(magnitude))) + 1
        if self._exponent is None:
            self._exponent = needed
        while self._exponent < needed:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            quarter = _BINS // 4
            self._counts = np.zeros(_BINS, dtype=np.int64)
            self._counts[quarter : quarter + _BINS // 2] = pairs
            self._exponent += 1

    def _add(self, values: FloatArray) -> None:
        assert self._exponent is not None
        limit = 2.0**self._exponent
        bins = np.floor((values.astype(np.float64) + limit) * (_BINS / (2 * limit)))
        half = _BINS // 2
        # Beside a large limit a tiny value is lost in the sum; its sign still says which side.
        first, last = np.where(values < 0, 0, half), np.where(values < 0, half - 1, _BINS - 1)
        index = np.clip(bins.astype(np.int64), first, last)
        self._counts += np.bincount(index, minlength=_BINS)

    def _edges(self) -> FloatArray:
        assert self._exponent is not None
        limit = 2.0**self._exponent
        return np.linspace(-limit, limit, _BINS + 1)

    def _percentile(self, percentile: float, low: float, high: float) -> tuple[float, float]:
        counts = self._counts.copy()
        counts[_BINS // 2] += self._zeros
        share = np.cumsum(counts) / counts.sum()
        edges, tail = self._edges(), 1 - percentile / 100
        below = edges[int(np.searchsorted(share, tail, side="right"))]
        above = edges[int(np.searchsorted(share, 1 - tail, side="left")) + 1]
        return max(low, min(float(below), 0.0)), min(high, max(float(above), 0.0))

    def _least_squares(self, low: float, high: float, levels: int) -> tuple[float, float]:
        # Exact zeros are left out: zero is always on the grid and costs nothing.
        edges = self._edges()
        centers, counts = (edges[:-1] + edges[1:]) / 2, self._counts
        used = counts > 0
        centers, counts = centers[used], counts[used]

        def cost(share: float) -> float:
            floor, ceiling = low * share, high * share
            clipped = centers - np.clip(centers, floor, ceiling)
            rounding = ((ceiling - floor) / levels) ** 2 / 12
            return float((counts * (clipped**2 + rounding)).sum())

        shares = np.linspace(1.0, _MSE_TIGHTEST, _MSE_CANDIDATES)
        best = min(shares, key=cost)
        return float(low * best), float(high * best)
