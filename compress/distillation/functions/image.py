"""Losses for regression and image outputs; :func:`logits_mse` of the response family is another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.distillation.functions.checks import in_float32, same_outputs
from compress.errors import DataError

__all__ = ["l1", "perceptual", "ssim"]

# The constants of Wang et al. 2004: the window, its width in pixels, and what steadies a division.
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference; sharper images than squares give (Zhao et al. 2017).

    Raises:
        DataError: the shapes differ.
    """
    return F.l1_loss(*same_outputs(student, teacher))


def ssim(student: Tensor, teacher: Tensor, data_range: float = 1.0) -> Tensor:
    """One minus the structural similarity of images ``(n, channels, height, width)``.

    Wang et al. 2004, "Image quality assessment": a Gaussian window of 11 pixels (on smaller images,
    of the largest odd number that fits) at every place where it fits whole; the mean over places,
    channels and samples.

    Args:
        student: images.
        teacher: images, same shape.
        data_range: largest less smallest value that a pixel can have.

    Raises:
        DataError: the shapes differ, or these are not images.
    """
    student, teacher = same_outputs(student, teacher)
    if student.dim() != 4:
        raise DataError(
            f"ssim compares images, (n, channels, height, width); the outputs are "
            f"{tuple(student.shape)}: use l1 or logits-mse."
        )
    window = [_blur(size, student) for size in student.shape[-2:]]

    def local(values: Tensor) -> Tensor:
        return window[0].T @ values @ window[1]

    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_s, mean_t = local(student), local(teacher)
    var_s = local(student * student) - mean_s**2
    var_t = local(teacher * teacher) - mean_t**2
    cov = local(student * teacher) - mean_s * mean_t
    brightness = (2 * mean_s * mean_t + c1) / (mean_s**2 + mean_t**2 + c1)
    structure = (2 * cov + c2) / (var_s + var_t + c2)
    return 1 - (brightness * structure).mean()


def perceptual(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of a frozen net's features of both outputs, averaged over layers.

    Johnson et al. 2016, "Perceptual losses for real-time style transfer and super-resolution"
    (their feature reconstruction loss).

    Args:
        student: features of the student's outputs, one tensor for each layer.
        teacher: features of the teacher's outputs, same shapes.
    """
    parts = [F.mse_loss(*in_float32(s, t)) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(parts).mean()


def _blur(size: int, like: Tensor) -> Tensor:
    """A matrix ``(size, places)`` whose columns are the window at each place where it fits.

    A product of matrices, since torch 2.13's convolutions abort on some widths in channels-last.
    """
    length = min(_WINDOW, size - 1 + size % 2)
    offsets = torch.arange(length, dtype=like.dtype, device=like.device) - (length - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    places = size - length + 1
    rows = torch.arange(length, device=like.device)[:, None] + torch.arange(
        places, device=like.device
    )
    blur = torch.zeros(size, places, dtype=like.dtype, device=like.device)
    return blur.scatter(0, rows, weights[:, None].expand(-1, places))
