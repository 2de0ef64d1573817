"""Losses on images and other values; ``logits-mse`` of the response family is another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from compress.config.fields import LARGEST_FACTOR, Number
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction
from compress.distillation.losses.base import LossBlock, Paths, loss_on_outputs
from compress.distillation.losses.checks import in_float32, same_outputs
from compress.distillation.net_layers import NetLayers
from compress.errors import DataError, SelectorError
from compress.models.settings import ModelSettings, build_model
from compress.modules.features import capture, module_outputs
from compress.modules.inputs import forward
from compress.outputs import OutputKind

__all__ = ["LOSSES", "L1Loss", "PerceptualLoss", "SsimLoss", "l1", "perceptual", "ssim"]

# The constants of Wang et al. 2004: the window, its width in pixels, and what steadies a division.
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference; it gives sharper images than squares do (Zhao et al. 2017).

    Args:
        student: outputs ``(n, ...)``.
        teacher: outputs, same shape.

    Raises:
        DataError: the shapes differ.
    """
    return F.l1_loss(*same_outputs(student, teacher))


class L1Loss(LossBlock):
    """Match values or images by mean absolute difference.

    Source: Zhao et al. 2017, "Loss functions for image restoration with neural networks".
    """

    implied_kind: ClassVar[OutputKind | None] = "values"
    kind: Literal["l1"] = "l1"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`l1` on the outputs."""
        return loss_on_outputs(l1)


def ssim(student: Tensor, teacher: Tensor, data_range: float = 1.0) -> Tensor:
    """One minus the structural similarity of images ``(n, channels, height, width)``.

    Wang et al. 2004, "Image quality assessment": a Gaussian window of 11 pixels (on smaller images,
    of the largest odd number that fits) at every place where it fits whole; the mean over places,
    channels and samples.

    Args:
        student: images ``(n, channels, height, width)``.
        teacher: images, same shape.
        data_range: largest minus smallest value that a pixel can have.

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


class SsimLoss(LossBlock):
    """Match the structure of images: one minus their structural similarity.

    Source: Wang et al. 2004, "Image quality assessment".
    """

    implied_kind: ClassVar[OutputKind | None] = "image"
    kind: Literal["ssim"] = "ssim"
    data_range: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """The largest minus the smallest value that a pixel can have."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`ssim` on the outputs."""
        return loss_on_outputs(lambda s, t: ssim(s, t, self.data_range))


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


class PerceptualLoss(LossBlock):
    """Match the features of a frozen net for both output images.

    Source: Johnson et al. 2016, "Perceptual losses for real-time style transfer and
    super-resolution".
    """

    implied_kind: ClassVar[OutputKind | None] = "image"
    kind: Literal["perceptual"] = "perceptual"
    layers: Paths
    """Layers of the frozen net whose features are compared, by path or glob."""
    network: ModelSettings | None = None
    """The frozen net, with its weights. Where not given, the teacher, which must then take its own
    outputs as inputs."""

    @field_validator("network")
    @classmethod
    def _has_weights(cls, network: ModelSettings | None) -> ModelSettings | None:
        if network is not None and network.weights is None:
            raise ValueError("a network that judges needs weights")
        return network

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`perceptual` on the frozen net's features of the outputs."""
        judge, example = self._judge(context), context.example_outputs
        try:
            layers = NetLayers("the network that judges", judge, module_outputs(judge, example))
        except RuntimeError as error:
            raise DataError(
                f"perceptual: the network that judges cannot take outputs of "
                f"{tuple(example.shape)} as its inputs ({str(error).splitlines()[0]}); give a "
                "network that can."
            ) from error
        try:
            names = layers.choose(self.layers)
        except ValueError as error:
            raise SelectorError(f"the loss 'perceptual': {error}; {layers}.") from None

        def features_of(images: Tensor) -> list[Tensor]:
            with capture(judge.to(images.device), names) as features:
                forward(judge, images.contiguous())
            return [features[name] for name in names]

        def compare(student: Tensor, teacher: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = features_of(teacher)
            return perceptual(features_of(student), wanted)

        return loss_on_outputs(compare)

    def _judge(self, context: DistillationContext) -> nn.Module:
        if self.network is None:
            judge = copy.deepcopy(context.teacher_module(self.kind))
        else:
            judge = build_model(self.network, context.stage.build, context.stage.seed)
        return judge.eval().requires_grad_(False)


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


LOSSES: tuple[type[LossBlock], ...] = (
    L1Loss,
    SsimLoss,
    PerceptualLoss,
)
