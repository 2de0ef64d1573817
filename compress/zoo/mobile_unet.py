"""A U-Net for phones: from an image to an image, in a camera's loop.

Topology: an encoder of MobileNetV2's inverted residuals (Sandler et al. 2018) and a decoder of
depthwise-separable convolutions (Howard et al. 2017, "MobileNets"), with U-Net's skip connections
(Ronneberger, Fischer and Brox 2015), which are added as in LinkNet (Chaurasia and Culurciello
2017): that costs less than to concatenate. Maps are enlarged by nearest neighbor (Odena, Dumoulin
and Olah 2016, "Deconvolution and Checkerboard Artifacts"). Nothing but the image itself is at full
resolution, where time would go: the head computes the four pixels of each place at half of it (Shi
et al. 2016, sub-pixel convolution). Controls scale and shift channels (Perez et al. 2018, "FiLM").
All of it has int8 kernels.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import DataError
from compress.zoo.mobilenet_v2 import InvertedResidual, convolution

__all__ = ["MobileUNet"]

# Of the inverted residuals: MobileNetV2's six would spend most of the time on wide maps.
_EXPANSION = 3
# The encoder is no wider than this times the width, as deep as it may be.
_WIDEST = 4
_DEEPEST = 6
# What controls are embedded in before they scale and shift.
_FEATURES = 32
# Of first weights: of the head, and of what scales and shifts.
_SMALL, _FILM = 1e-3, 0.1
_NONE: Mapping[str, int] = MappingProxyType({})


class _Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, and one of 1x1 across channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = convolution(
            in_channels, in_channels, 3, groups=in_channels, activation=nn.ReLU6()
        )
        self.pointwise = convolution(in_channels, out_channels, 1, activation=nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, out_channels, h, w)``."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class _Film(nn.Module):
    """Scales and shifts the channels of a map by numbers that depend on the controls."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(_FEATURES, channels), nn.Linear(_FEATURES, channels)
        # To begin with, channels stay about what they are, whatever the controls.
        for layer, value in ((self.scale, 1.0), (self.shift, 0.0)):
            nn.init.normal_(layer.weight, std=_FILM)
            nn.init.constant_(layer.bias, value)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """The map ``(n, channels, h, w)``, each channel by its own factor and offset."""
        scale, shift = self.scale(features), self.shift(features)
        y: Tensor = x * scale[:, :, None, None] + shift[:, :, None, None]
        return y


class _Up(nn.Module):
    """Narrows a coarse map, enlarges it, adds the skip connection, and convolves."""

    def __init__(self, in_channels: int, out_channels: int, *, is_controlled: bool) -> None:
        super().__init__()
        self.narrow = convolution(in_channels, out_channels, 1, activation=nn.ReLU6())
        self.film = _Film(out_channels) if is_controlled else None
        self.conv = _Separable(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor, features: Tensor | None) -> Tensor:
        """Features of the size of ``skip``, from ``x``, which has half of it."""
        x = self.narrow(x)
        if self.film is not None and features is not None:
            x = self.film(x, features)
        enlarged = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y: Tensor = self.conv(enlarged + skip)
        return y


class MobileUNet(nn.Module):
    """Images ``(n, in_channels, h, w)`` to images ``(n, classes, h, w)``.

    ``h`` and ``w`` are multiples of 2 to the power of ``depth``. With as many channels out as in,
    the net computes what is added to the image, which is little to begin with; pixels are from 0 to
    1 then, as those that come in are, and what is beyond is cut off but in training, which needs
    its gradients. With controls, the net takes numbers ``(n, size)`` beside the ``image``, each by
    its name.

    Args:
        in_channels: channels of an image.
        classes: channels of an output.
        width: channels at half of the resolution; each further halving doubles them, up to four
            times as many.
        depth: halvings of the resolution, from 2 to 6.
        blocks: inverted residuals at the lowest resolution.
        controls: how many numbers each control has, by its name, such as ``{strength: 1}``.

    Raises:
        ValueError: ``depth`` is not from 2 to 6, or a name is that of no control.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        classes: int = 3,
        width: int = 16,
        depth: int = 3,
        blocks: int = 3,
        controls: Mapping[str, int] = _NONE,
    ) -> None:
        super().__init__()
        if not 2 <= depth <= _DEEPEST:
            raise ValueError(f"depth must be from 2 to {_DEEPEST}; got {depth}")
        for name in controls:
            if not name.isidentifier() or name == "image":
                raise ValueError(f"{name!r} cannot name a control; give a word such as strength")
        self.multiple, self.controls = 2**depth, tuple(controls)
        self.is_filter = in_channels == classes
        widths = [width * min(2**level, _WIDEST) for level in range(depth)]
        steps = list(pairwise(widths))
        # With an even kernel and stride every pixel is seen as often as any other.
        conv = nn.Conv2d(in_channels, width, 4, 2, 1, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6())
        self.down = nn.ModuleList(InvertedResidual(*each, _EXPANSION, stride=2) for each in steps)
        middle = (InvertedResidual(widths[-1], widths[-1], _EXPANSION, 1) for _ in range(blocks))
        self.middle = nn.Sequential(*middle)
        self.embed = nn.Linear(sum(controls.values()), _FEATURES) if controls else None
        self.up = nn.ModuleList(
            _Up(below, above, is_controlled=bool(controls)) for above, below in reversed(steps)
        )
        self.head = nn.Conv2d(width, 4 * classes, 3, padding=1)
        if self.is_filter:
            nn.init.normal_(self.head.weight, std=_SMALL)
            self.head.bias = nn.Parameter(torch.zeros(4 * classes))

    def forward(self, image: Tensor, **controls: Tensor) -> Tensor:
        """The image that is made of each, of the same height and width.

        Raises:
            DataError: a height or width that cannot be halved so often, or other controls.
        """
        if not torch.compiler.is_compiling():  # an exporter has the sizes of a batch that was run
            self._check(image, controls)
        features = None
        if self.embed is not None:
            given = [controls[name] for name in self.controls]
            features = F.relu(self.embed(torch.cat(given, dim=1)))
        x: Tensor = self.stem(image)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up in self.up:
            x = up(x, skips.pop(), features)
        made = F.pixel_shuffle(self.head(x), 2)
        if not self.is_filter:
            return made
        made = image + made
        return made if self.training else made.clamp(0, 1)

    def _check(self, image: Tensor, controls: Mapping[str, Tensor]) -> None:
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise DataError(
                f"mobile-unet: with {self.multiple.bit_length() - 1} halvings, height and width of "
                f"an image must be multiples of {self.multiple}; got {height} by {width}."
            )
        if set(controls) != set(self.controls):
            wanted, given = (", ".join(names) or "none" for names in (self.controls, controls))
            raise DataError(f"mobile-unet: its controls are {wanted}; it was given {given}.")
