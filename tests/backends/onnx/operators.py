"""Nets around one operator each, with every attribute that changes what it means.

Each is a convolution, the operator, and another convolution, so that the operator stands between
two layers that have formats. Used to ask of every operator in every format whether the file
computes what the module computes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["OPERATORS", "Net", "inputs", "make"]

_CHANNELS, _SIZE = 8, 9


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(nn.Module):
    """The operator between two layers."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, _CHANNELS, 3, padding=1), middle
        shape = middle.eval()(torch.zeros(1, _CHANNELS, _SIZE, _SIZE)).shape
        self.last = nn.Conv2d(shape[1], 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(torch.relu(self.first(x))))


class Branches(nn.Module):
    """Two layers of different ranges, joined."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.one(x), 4 * self.other(x))


class Scaled(nn.Module):
    """Factors of channels that differ ten thousandfold, behind a layer or behind a function."""

    def __init__(self, *, behind_layer: bool) -> None:
        super().__init__()
        self.layer, self.behind_layer = nn.Conv2d(8, 8, 1), behind_layer
        self.factor = nn.Parameter(torch.logspace(-4, 0, 8).reshape(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        made = self.layer(x)
        return x + self.factor * (made if self.behind_layer else torch.relu(made))


class Bounded(nn.Module):
    """A clamp whose bounds are a tensor for each channel and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 1)
        self.register_buffer("low", torch.linspace(-1, 0.2, 8).reshape(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(self.layer(x), min=self.low, max=torch.tensor(0.4))


class Silent(nn.Module):
    """A layer whose input is never anything but zero, beside one that works."""

    def __init__(self) -> None:
        super().__init__()
        self.silent, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        nn.init.uniform_(self.silent.bias, -0.4, 0.4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.silent(F.relu(x - 1e6)) + self.other(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed = tokens + self.heads(tokens, tokens, tokens, need_weights=False)[0]
        return mixed.transpose(1, 2).reshape(x.shape)


def _norm(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for tensor in (norm.running_var, norm.weight):
        nn.init.uniform_(tensor, 0.5, 2)
    for tensor in (norm.running_mean, norm.bias):
        nn.init.uniform_(tensor, -1, 1)
    return norm


def _behind(*after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, 1), *after)


def _sampled(mode: str, padding: str, *, align: bool) -> nn.Module:
    def sample(x: Tensor) -> Tensor:
        turn = torch.tensor([[[1.2, 0.1, 0.0], [0.0, 0.9, 0.2]]]).expand(len(x), -1, -1)
        grid = F.affine_grid(turn, list(x.shape), align_corners=align)
        return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=align)

    return Of(sample)


def _resized(mode: str, size: int = 13, **options: bool) -> nn.Module:
    return Of(lambda x: F.interpolate(x, size=(size, size - 2), mode=mode, **options))


#: The operator of each net, by name.
OPERATORS: dict[str, Callable[[], nn.Module]] = {
    "average pooling, ceil": lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    "average pooling, ceil and pads": lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    "average pooling, pads counted": lambda: nn.AvgPool2d(3, 1, padding=1),
    "average pooling, pads left out": lambda: nn.AvgPool2d(
        3, 2, padding=1, ceil_mode=True, count_include_pad=False
    ),
    "average pooling, divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "average pooling, rectangle": lambda: nn.AvgPool2d((1, 3), (2, 1)),
    "average pooling, adaptive": lambda: nn.AdaptiveAvgPool2d(4),
    "max pooling, ceil": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "max pooling, dilated": lambda: nn.MaxPool2d(3, 1, padding=1, dilation=2),
    "max pooling, adaptive": lambda: nn.AdaptiveMaxPool2d(3),
    "power pooling": lambda: nn.LPPool2d(2, 2),
    "mean of all": lambda: Of(lambda x: x.mean((2, 3), keepdim=True)),
    "mean of a row": lambda: Of(lambda x: x.mean(3, keepdim=True)),
    "largest of all": lambda: Of(lambda x: x.amax((2, 3), keepdim=True)),
    "convolution, dilated": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2),
    "convolution, grouped": lambda: nn.Conv2d(8, 8, 3, groups=2),
    "convolution, depthwise": lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1),
    "convolution, strides": lambda: nn.Conv2d(8, 8, (1, 3), (2, 1), (0, 1)),
    "convolution, same": lambda: nn.Conv2d(8, 8, 4, padding="same"),
    "convolution, reflected": lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    "convolution, circular": lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    "transposed convolution": lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2),
    "transposed convolution, dilated": lambda: nn.ConvTranspose2d(8, 8, 2, 2, dilation=2),
    "batch norm before": lambda: nn.Sequential(_norm(nn.BatchNorm2d(8)), nn.Conv2d(8, 8, 3, 1, 1)),
    "batch norm after": lambda: _behind(_norm(nn.BatchNorm2d(8)), nn.ReLU()),
    "batch norm of the batch": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "group norm": lambda: nn.GroupNorm(2, 8),
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True),
    "layer norm": lambda: nn.LayerNorm([8, 9, 9]),
    "response norm": lambda: nn.LocalResponseNorm(3),
    "clip at six": lambda: _behind(nn.ReLU6()),
    "hard swish": lambda: _behind(nn.Hardswish()),
    "swish": lambda: _behind(nn.SiLU()),
    "gelu, tanh": lambda: _behind(nn.GELU(approximate="tanh")),
    "leaky, negative": lambda: _behind(nn.LeakyReLU(-0.5)),
    "elu": lambda: _behind(nn.ELU(0.7)),
    "prelu": lambda: Of(lambda x: F.prelu(x - 0.5, torch.linspace(-1, 1, 8))),
    "softplus": lambda: _behind(nn.Softplus(beta=2, threshold=5)),
    "sigmoid": lambda: _behind(nn.Sigmoid()),
    "clip below zero": lambda: _behind(nn.Hardtanh(-2, -0.1)),
    "clip above zero": lambda: _behind(Of(lambda x: x.clamp(0.2, 0.9))),
    "clip at the top": lambda: _behind(Of(lambda x: x.clamp(max=-0.1))),
    "clip, mixed numbers": lambda: _behind(Of(lambda x: x.clamp(-1, 0.7))),
    "clip, mixed bounds": Bounded,
    "relu of a clip": lambda: Of(lambda x: F.relu((x - 0.5).clamp(max=-0.1)) + x),
    "clip of a clip": lambda: _behind(Of(lambda x: x.clamp(max=0.1).clamp(min=0.3) * x)),
    "threshold": lambda: _behind(nn.Threshold(0.1, -0.5)),
    "softmax": lambda: _behind(nn.Softmax(1)),
    "gate": lambda: nn.GLU(1),
    "nearest": lambda: _resized("nearest"),
    "nearest, exact": lambda: _resized("nearest-exact"),
    "bilinear": lambda: _resized("bilinear"),
    "bilinear, aligned": lambda: _resized("bilinear", align_corners=True),
    "bilinear, smaller": lambda: _resized("bilinear", 5, antialias=True),
    "bicubic": lambda: _resized("bicubic"),
    "pixel shuffle": lambda: nn.PixelShuffle(2),
    "channel shuffle": lambda: nn.ChannelShuffle(2),
    "pad, constant": lambda: nn.ConstantPad2d((1, 2, 0, 3), 0.7),
    "pad, reflected": lambda: nn.ReflectionPad2d(2),
    "pad, negative": lambda: nn.ZeroPad2d(-1),
    "sum": lambda: Branches(lambda a, b: a + b),
    "difference": lambda: Branches(lambda a, b: a - b),
    "product": lambda: Branches(lambda a, b: a * torch.sigmoid(b)),
    "concatenation": lambda: Branches(lambda a, b: torch.cat([a, b], 1)),
    "split": lambda: Of(lambda x: torch.cat([i * c for i, c in enumerate(x.split(3, 1), 1)], 1)),
    "slices": lambda: Of(lambda x: x[:, ::2, 1:-1, ::2]),
    "roll": lambda: Of(lambda x: torch.roll(x, (1, 2), (2, 3))),
    "flip": lambda: Of(lambda x: x.flip(3)),
    "transpose": lambda: Of(lambda x: x.permute(0, 1, 3, 2).contiguous()),
    "factors of a layer": lambda: Scaled(behind_layer=True),
    "factors of a function": lambda: Scaled(behind_layer=False),
    "silent input": Silent,
    "attention": Attention,
    "division": lambda: Of(lambda x: x / (x.mean((2, 3), keepdim=True) + 1)),
    "deviation": lambda: Of(lambda x: x - x.std((2, 3), keepdim=True)),
    "variance": lambda: Of(lambda x: x - x.var((2, 3), keepdim=True, unbiased=False)),
    "sums so far": lambda: Of(lambda x: x.cumsum(2) / 9),
    "largest four": lambda: Of(lambda x: x.topk(4, dim=1).values),
    "table of channels": lambda: Of(lambda x: x[:, [3, 1, 2, 2]]),
    "patches": lambda: Of(lambda x: F.unfold(x, 3, padding=1).reshape(len(x), -1, 9, 9)),
    "grid, border": lambda: _sampled("bilinear", "border", align=False),
    "grid, reflected": lambda: _sampled("bilinear", "reflection", align=True),
    "einsum": lambda: Of(lambda x: torch.einsum("nchw,nchv->ncwv", x, x) / 9),
}


def make(name: str) -> Net:
    """The net of that name, in eval mode, with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Net(OPERATORS[name]()).eval()


def inputs(count: int = 48) -> Tensor:
    """Seeded images that are not centered at zero."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, _SIZE, _SIZE, generator=generator) + 0.3
