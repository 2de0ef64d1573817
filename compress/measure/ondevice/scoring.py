"""What outputs are worth: the score of each sample, and the difference from another machine's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compress.measure.ondevice.tensor_spec import Array

__all__ = ["METRICS", "OVER_DATA_SETS", "Difference", "difference", "differences", "scores"]


# Equal images have 60 dB: that is less error than rounding to bytes makes, which is 58.9.
_LEAST_ERROR = 1e-6
# Of the structural similarity: the window, its width in pixels, and what steadies a division.
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def scores(outputs: Array, labels: Array, metric: str) -> Array:
    """The score of each sample, a float array of shape ``(n,)``.

    Args:
        outputs: ``(n, classes, ...)`` for ``accuracy``, else anything with samples first.
        labels: ``(n, ...)`` class indices for ``accuracy``, of which negative ones do not count;
            else the outputs' shape.
        metric: ``accuracy`` is right (1) or wrong (0), or the share of right positions where a
            sample has several; outputs that are not finite are wrong. ``binary-accuracy`` is the
            share of outputs on the right side of 0. ``mse`` is the mean over a sample's values, and
            ``r2`` has R squared over all samples for its mean. ``psnr`` is the peak signal-to-noise
            ratio of an image with pixels from 0 to 1 in dB, at most 60, which equal images have;
            ``ssim`` the structural similarity of images ``(n, channels, height, width)``.

    Raises:
        ValueError: shapes that do not go together, or labels that are no class.
    """
    if len(outputs) != len(labels):
        raise ValueError(
            f"{len(outputs)} outputs and {len(labels)} labels; there must be one label per sample."
        )
    if metric == "accuracy":
        return _accuracy(outputs, labels)
    if metric == "ssim":
        return _ssim(outputs, labels)
    values, wanted = _rows(outputs, labels, metric)
    return _OF_VALUES[metric](values, wanted)


def _accuracy(outputs: Array, labels: Array) -> Array:
    import numpy as np

    if outputs.ndim < 2 or outputs.shape[:1] + outputs.shape[2:] != labels.shape:
        raise ValueError(
            "accuracy needs outputs (n, classes, ...) and labels (n, ...); got "
            f"{outputs.shape} and {labels.shape}."
        )
    classes = outputs.shape[1]
    if labels.dtype.kind not in "iub" or (labels.size and labels.max() >= classes):
        raise ValueError(
            f"labels must be class indices 0 to {classes - 1}; got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    right = (outputs.argmax(axis=1) == labels) & np.isfinite(outputs).all(axis=1)
    return _mean_of_known(right, labels >= 0)


def _mean_of_known(right: Array, known: Array) -> Array:
    import numpy as np

    right, known = (part.reshape(len(part), -1) for part in (right, known))
    if not known.any(axis=1).all():
        raise ValueError("a sample has no label; leave it out.")
    if known.all():
        every: Array = right.mean(axis=1, dtype=np.float64)
        return every
    of_known: Array = (right & known).sum(axis=1) / known.sum(axis=1)
    return of_known


def _rows(outputs: Array, labels: Array, metric: str) -> tuple[Array, Array]:
    """Both as ``(n, values)``: only axes of one may differ, and nothing is broadcast."""
    import numpy as np

    shapes = [[size for size in one.shape[1:] if size != 1] for one in (outputs, labels)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{metric} needs outputs and labels of one shape; got {outputs.shape} and "
            f"{labels.shape}."
        )
    values, wanted = (one.reshape(len(one), -1).astype(np.float64) for one in (outputs, labels))
    return values, wanted


def _mse(values: Array, labels: Array) -> Array:
    each: Array = ((values - labels) ** 2).mean(axis=1)
    return each


def _r2(values: Array, labels: Array) -> Array:
    spread = ((labels - labels.mean(axis=0)) ** 2).sum()
    if not spread > 0:
        raise ValueError("r2 needs labels that vary from sample to sample; take mse.")
    each: Array = 1 - len(labels) * ((values - labels) ** 2).sum(axis=1) / spread
    return each


def _binary(values: Array, labels: Array) -> Array:
    import numpy as np

    known = ~(np.isnan(labels) | (labels < 0))
    return _mean_of_known(((values > 0) == (labels > 0.5)) & np.isfinite(values), known)


def _psnr(values: Array, labels: Array) -> Array:
    import numpy as np

    # As they are shown: what is beyond the range of pixels is cut off.
    error = _mse(values.clip(0, 1), labels)
    each: Array = -10 * np.log10(np.maximum(error, _LEAST_ERROR))
    return each


def _ssim(outputs: Array, labels: Array) -> Array:
    """Wang et al. 2004, "Image quality assessment", with a Gaussian window of 11 pixels."""
    import numpy as np

    if outputs.ndim != 4 or outputs.shape != labels.shape:
        raise ValueError(
            "ssim needs images (n, channels, height, width), and labels of the same shape; got "
            f"{outputs.shape} and {labels.shape}."
        )
    down, across = (_windows(size) for size in outputs.shape[2:])

    def local(image: Array) -> Array:
        means: Array = down @ image @ across.T
        return means

    found = []
    for place in range(len(outputs)):
        image, wanted = outputs[place].clip(0, 1).astype(np.float64), labels[place]
        mean, other = local(image), local(wanted)
        variances = local(image * image) - mean**2 + local(wanted * wanted) - other**2
        both = local(image * wanted) - mean * other
        brightness = (2 * mean * other + _C1) / (mean**2 + other**2 + _C1)
        found.append((brightness * (2 * both + _C2) / (variances + _C2)).mean())
    return np.array(found)


def _windows(size: int) -> Array:
    """The window at every place of an axis where it fits whole, ``(places, size)``."""
    import numpy as np

    length = min(_WINDOW, size - 1 + size % 2)
    weights = np.exp(-((np.arange(length) - (length - 1) / 2) ** 2) / (2 * _SIGMA**2))
    rows: Array = np.zeros((size - length + 1, size))
    for place, row in enumerate(rows):
        row[place : place + length] = weights / weights.sum()
    return rows


_OF_VALUES = {"mse": _mse, "r2": _r2, "binary-accuracy": _binary, "psnr": _psnr}
#: What :func:`scores` computes, and what :mod:`.dataset_metrics` does.
METRICS = ("accuracy", *_OF_VALUES, "ssim")
OVER_DATA_SETS = ("f1", "mean-iou", "auroc", "spearman")


class _ByOutput(TypedDict, total=False):
    outputs: dict[str, Difference]


class Difference(_ByOutput):
    """How far outputs are from those of another machine, on ``samples`` that both have.

    Of a model with several outputs the numbers are of the worst one, and ``outputs`` has those of
    each by its name.
    """

    samples: int
    agreement: float | None
    max_error: float | None


def differences(
    names: Sequence[str], outputs: Sequence[Array], expected: Sequence[Array]
) -> Difference:
    """How far a model's outputs are from those of another machine: the worst, and each by name.

    Args:
        names: of the model's outputs.
        outputs: that it gave, in the same order.
        expected: those of the other machine, of the first outputs at least.

    Raises:
        ValueError: shapes that do not go together, or more outputs expected than there are.
    """
    if len(expected) > len(outputs):
        raise ValueError(f"it has {len(outputs)} output(s), and {len(expected)} were expected.")
    each = {names[i]: difference(outputs[i], wanted) for i, wanted in enumerate(expected)}
    if len(each) == 1:
        return next(iter(each.values()))
    agreements = [one["agreement"] for one in each.values() if one["agreement"] is not None]
    errors = [one["max_error"] for one in each.values()]
    known = [error for error in errors if error is not None]
    return {
        "samples": min(one["samples"] for one in each.values()),
        "agreement": min(agreements, default=None),
        "max_error": max(known) if len(known) == len(errors) else None,
        "outputs": each,
    }


def difference(outputs: Array, expected: Array) -> Difference:
    """How far outputs are from those of another machine, on the samples that both have.

    ``agreement`` is the share of equal largest outputs (``None`` without classes), of whole numbers
    that of equal ones, ``max_error`` the largest absolute difference (``None`` if that is not
    finite).

    Raises:
        ValueError: shapes that do not go together.
    """
    import numpy as np

    own = outputs[: len(expected)]
    if own.shape != expected.shape or not own.size or own.dtype.kind not in "fiub":
        raise ValueError(
            f"its outputs have shape {outputs.shape}; expected were {expected.shape}, of numbers."
        )
    error = float(np.abs(own.astype(np.float64) - expected).max())
    agreement = None
    if own.dtype.kind != "f":
        agreement = float((own == expected).mean())
    elif own.ndim > 1 and own.shape[1] > 1:
        agreement = float((own.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return {
        "samples": len(expected),
        "agreement": agreement,
        "max_error": error if math.isfinite(error) else None,
    }
