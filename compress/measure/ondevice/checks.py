"""Checks of a model on this device: overflowing int8 sums, denormal numbers, repeatability."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from compress.measure.ondevice.inputs import rotation_of
from compress.measure.ondevice.runtimes import open_model, runtime_of
from compress.measure.ondevice.tensor_spec import pairs
from compress.measure.ondevice.timing import are_finite, collect, sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compress.measure.ondevice.answers import CheckAnswer
    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.runtimes.base import InferenceSession
    from compress.measure.ondevice.tensor_spec import Array

__all__ = ["check", "sqnr_db"]


def check(job: WorkerJob) -> CheckAnswer:
    """What would make a model's numbers misleading on this device.

    Saturation is looked for by comparing the outputs with those of the runtime's ``exact`` variant.
    """
    # The denormal check first: it must own the first session of the process.
    ratio = _denormal_ratio(job)
    usual = open_model(job)
    exact = _exact_session(job)
    signal: list[Array] = []
    noisy: list[Array] = []
    again: list[Array] = []
    for feed in rotation_of(usual, job)[1][:4]:
        noisy += usual.run(None, feed)
        signal += exact.run(None, feed) if exact is not None else []
        again += usual.run(None, feed)
    repeatable = sqnr_db(noisy, again) is None
    saturation = sqnr_db(signal, noisy) if exact is not None and repeatable else None
    if saturation is not None and saturation > runtime_of(job).rounding_db:
        saturation = None
    return {
        "denormal_ratio": ratio,
        "saturation_sqnr_db": saturation,
        "repeatable": repeatable,
        "finite": are_finite(noisy),
    }


def _exact_session(job: WorkerJob) -> InferenceSession | None:
    try:
        return open_model(job, "exact")
    except Exception:  # onnxruntime cannot rewrite graphs in which int8 constants are shared
        return None


def _denormal_ratio(job: WorkerJob) -> float:
    """Time of a run over its time with denormal numbers flushed to zero: the lower quartile.

    onnxruntime sets the CPU's flush bit only on the thread that makes the first session of a
    process. So the flushed session comes first, on a thread of its own, and short blocks of both
    alternate. On a busy machine the median of their ratios strays by 20 %; the lower quartile
    stayed below 1 in every trial of a model without denormals.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import for all other jobs

    ratios: list[float] = []
    with ThreadPoolExecutor(1) as other:
        flushed = other.submit(open_model, job, "flushed").result()
        plain = open_model(job)
        _, rotation = rotation_of(plain, job)
        quick, slow = sampler(flushed, rotation, 1), sampler(plain, rotation, 1)
        begin = time.perf_counter()
        while len(ratios) < 40 and (len(ratios) < 4 or time.perf_counter() - begin < 0.5):
            without = np.median(other.submit(collect, quick, 0.002, 1, 1.0).result())
            ratios.append(float(np.median(collect(slow, 0.002, 1, 1.0)) / without))
    return float(np.percentile(ratios, 25))


def sqnr_db(reference: Sequence[Array], outputs: Sequence[Array]) -> float | None:
    """Signal-to-noise ratio in decibel over all numbers; ``None`` where all of them are equal."""
    signal = noise = 0.0
    for expected, got in pairs(reference, outputs):
        if np.shape(expected) != np.shape(got):
            return -math.inf
        if isinstance(expected, np.ndarray) and expected.dtype.kind in "fiu":
            signal += float(np.square(expected, dtype=np.float64).sum())
            noise += float(np.square(np.subtract(got, expected, dtype=np.float64)).sum())
    if not noise > 0 or not signal > 0:
        return None
    return 10 * math.log10(signal / noise)
